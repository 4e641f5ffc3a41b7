"""What is set aside for a call is never less than it costs, in any language."""

from dataclasses import replace

import pytest

from knowledge.answering.spending import most_tokens
from knowledge.llm.base import ModelConfig, Passage, Prompt, Turn
from knowledge.llm.calls import count_bytes

CONFIG = ModelConfig(provider="anthropic", model="claude-sonnet-5-5", max_tokens=700)


@pytest.mark.parametrize(
    "word", ["router ", "10.0.0.1/8 ", "路由器", "ルーター", "เราเตอร์", "राउटर ", "🛰️", "ঙ্ক"]
)
def test_no_text_has_more_tokens_than_bytes(word: str) -> None:
    """A tokenizer that knows none of a text's characters takes each of their bytes for a token."""
    text = word * 100
    prompt = Prompt(
        system="s",
        question=text,
        passages=(Passage(n=1, title=text, uri=text, heading=text, text=text),),
        history=(Turn(text, text),),
    )
    sent = 7 * len(text.encode())
    most = most_tokens(size=count_bytes(prompt), config=CONFIG)
    assert (most.input_tokens > sent, most.output_tokens) == (True, 700)
    asked = replace(prompt, unconfirmed=(text,))
    assert count_bytes(asked) > sent + len(text.encode()), "what is added to the question is sent, too"


def test_half_a_character_is_counted() -> None:
    assert count_bytes(Prompt(system="", question="\ud83d", passages=())) == 3
