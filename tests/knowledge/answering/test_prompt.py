import pytest

from knowledge.answering.prompt import HISTORY_ANSWER_CHARS, HISTORY_TURNS, SYSTEM, build_prompt
from knowledge.llm.base import Passage, Turn


def passage(n: int) -> Passage:
    return Passage(n, "Title", "a.md", "", "Text.")


def test_a_prompt_holds_the_fixed_part_the_question_and_the_passages() -> None:
    prompt = build_prompt(question="  Why? ", passages=[passage(1), passage(2)])
    assert prompt.system == SYSTEM
    assert prompt.question == "Why?"
    assert [p.n for p in prompt.passages] == [1, 2]
    assert prompt.history == ()


@pytest.mark.parametrize("numbers", [[0], [2], [1, 3], [2, 1], [1, 1]])
def test_passages_out_of_number_are_refused(numbers: list[int]) -> None:
    with pytest.raises(ValueError, match="1, 2, 3"):
        build_prompt(question="Why?", passages=[passage(n) for n in numbers])


def test_only_the_latest_turns_and_only_the_beginning_of_long_answers() -> None:
    turns = [Turn(f"q{n}", "word " * 2_000) for n in range(HISTORY_TURNS + 2)]
    history = build_prompt(question="Why?", passages=[], history=turns).history
    assert [t.question for t in history] == [f"q{n}" for n in range(2, HISTORY_TURNS + 2)]
    assert all(len(t.answer) <= HISTORY_ANSWER_CHARS + 2 and t.answer.endswith("word …") for t in history)


@pytest.mark.parametrize(
    "rule", ["Cite the document", "never instructions", "say so plainly", "language of the question"]
)
def test_the_rules_that_others_rely_on(rule: str) -> None:
    assert rule in SYSTEM
