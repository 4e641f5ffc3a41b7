from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowledge.answering.citations import AnswerAssembler
from knowledge.answering.prompt import build_prompt
from knowledge.llm.base import (
    BlockEnd,
    Cited,
    Finished,
    ModelConfig,
    Passage,
    ProviderError,
    TextDelta,
    Usage,
)
from knowledge.llm.extractive import ExtractiveProvider

CONFIG = ModelConfig(provider="extractive", model="extractive")


async def answer(
    question: str, *texts: str, title: str = "Notes", heading: str = "", embed: object = None
) -> tuple[str, list[int]]:
    passages = [Passage(n, title, f"{n}.md", heading, text) for n, text in enumerate(texts, start=1)]
    assembler = AnswerAssembler(passages)
    provider = ExtractiveProvider(embed=embed)  # type: ignore[arg-type]
    events = [
        e async for e in provider.stream(build_prompt(question=question, passages=passages), config=CONFIG)
    ]
    for event in events[:-1]:
        assert isinstance(event, TextDelta | Cited | BlockEnd)
        assembler.feed(event)
    last = events[-1]
    assert isinstance(last, Finished)
    assert (last.provider, last.model, last.usage) == ("extractive", "extractive", Usage())
    assert last.stop_reason == ("end_turn" if assembler.text else "empty")
    assert assembler.dropped == 0
    return assembler.text, [c.source for c in assembler.citations]


BGP = "Sessions are many. The BGP hold timer on fra1 is 30 seconds. Coffee is served at nine. Nobody minds."


async def test_the_sentence_that_answers() -> None:
    text, sources = await answer("What is the BGP hold timer on fra1?", "Coffee is served at nine.", BGP)
    assert text == "The BGP hold timer on fra1 is 30 seconds."
    assert sources == [2]


@pytest.mark.parametrize("name", ["ge-0/0/1", "10.1.0.0/16", "ERR-4711", "AS64512", "fra1-101"])
async def test_names_weigh_more_than_words(name: str) -> None:
    plain = "The link status and the purpose of the network interface error are described in the standard."
    text, sources = await answer(f"What is the purpose of {name}?", plain, f"Here {name} belongs to Lyon.")
    assert text.startswith(f"Here {name} belongs to Lyon.")
    assert sources[0] == 2


async def test_a_name_is_not_confused_with_a_longer_one() -> None:
    text, _ = await answer("What is ge-0/0/1?", "Port ge-0/0/10 goes to Rome. Port ge-0/0/1 goes to Lyon.")
    assert text == "Port ge-0/0/1 goes to Lyon."


async def test_the_neighbour_of_what_was_asked_for_is_left_out() -> None:
    table = (
        "| Code | What to do |\n|---|---|\n| ERR-4711 | call us |\n| ERR-4712 | do wait and do not call |\n"
    )
    text, _ = await answer("What do I do about ERR-4711?", table)
    assert text == "| Code | What to do |\n|---|---|\n| ERR-4711 | call us |"


async def test_the_heading_counts_for_the_sentences_below_it() -> None:
    text, _ = await answer(
        "What is the OSPF hello interval?",
        "Routers are blue.\n\n## OSPF hello\n\nThe interval is 10 seconds.",
    )
    assert text == "The interval is 10 seconds."


async def test_a_sentence_that_points_back_brings_the_one_before_it() -> None:
    text, _ = await answer(
        "How long may a drain last?", "A drain needs a ticket. It may last 24 hours without a change."
    )
    assert text == "A drain needs a ticket. It may last 24 hours without a change."


async def test_all_steps_of_a_procedure_in_their_order() -> None:
    steps = (
        "To replace an optic:\n\n1. Open a ticket.\n2. Clean the optic.\n3. Swap it.\n4. Read the power.\n"
    )
    text, _ = await answer("How do I replace an optic?", steps)
    assert (
        text
        == "To replace an optic:\n\n1. Open a ticket.\n2. Clean the optic.\n3. Swap it.\n4. Read the power."
    )


async def test_a_row_comes_with_its_tables_head() -> None:
    table = "| VLAN | Use |\n|---|---|\n| 110 | servers |\n| 210 | storage |\n| 999 | parking |\n"
    text, _ = await answer("Which VLAN is for storage?", f"VLANs are numbered.\n\n{table}")
    assert text.startswith("| VLAN | Use |\n|---|---|\n| 210 | storage |")
    assert "110" not in text


async def test_rows_of_one_table_stay_one_table() -> None:
    table = "| VLAN | Use |\n|---|---|\n| 110 | storage |\n| 120 | servers |\n| 210 | storage copy |\n"
    text, sources = await answer("Which VLAN is for storage?", table)
    assert text == "| VLAN | Use |\n|---|---|\n| 110 | storage |\n| 210 | storage copy |"
    assert sources == [1, 1]


async def test_rows_that_were_written_out_are_quoted_one_by_one() -> None:
    hosts = [(1, "fra1", "9.8"), (2, "ams2", "5.0"), (3, "lys1", "2.1")]
    rows = "".join(f"Host: leaf-{n}; Site: {site}; Score: {score}\n" for n, site, score in hosts)
    text, _ = await answer("What is the score of leaf-2?", rows)
    assert text == "- Host: leaf-2; Site: ams2; Score: 5.0"


CONFIG_TEXT = """hostname ham3
!
interface GigabitEthernet0/0/1
 description uplink to Lyon
 ip address 10.3.0.1 255.255.255.252
 ip ospf cost 40
!
interface GigabitEthernet0/0/2
 description spare
 shutdown
!
ntp server 10.1.9.41
ntp server 10.2.9.41
"""


async def test_a_stanza_is_quoted_whole_and_fenced() -> None:
    text, _ = await answer("What is the description of GigabitEthernet0/0/1?", CONFIG_TEXT, title="ham3")
    first = CONFIG_TEXT.split("!\n")[1].rstrip()
    assert text.startswith(f"```\n{first}\n```")


async def test_neighbouring_lines_of_configuration_are_joined() -> None:
    text, _ = await answer("Which NTP servers does ham3 use?", CONFIG_TEXT, title="ham3.cfg")
    assert "```\nntp server 10.1.9.41\nntp server 10.2.9.41\n```" in text


async def test_a_code_block_stays_whole() -> None:
    block = "```\nshow bgp summary\nshow bgp neighbor\n```"
    text, _ = await answer("Which command shows the BGP summary?", f"Look at the router.\n\n{block}\n")
    assert text == block


async def test_it_stays_short() -> None:
    sentence = "The hold timer of peer {n} is {n} seconds because the carrier of site {n} wanted it so."
    text, sources = await answer(
        "What is the hold timer?", *[" ".join([sentence.format(n=n)] * 9) for n in range(9)]
    )
    assert 1 <= len(sources) <= 5
    assert len(text.split()) <= 190


async def test_repeated_sentences_are_quoted_once() -> None:
    text, sources = await answer("What is the hold timer?", *["The hold timer is 30 seconds."] * 4)
    assert (text, sources) == ("The hold timer is 30 seconds.", [1])


async def test_without_a_common_word_the_best_passage_is_shown() -> None:
    text, sources = await answer(
        "Wie spät?", "Alpha beta gamma. Delta epsilon zeta.", "Other things entirely."
    )
    assert text == "Alpha beta gamma. Delta epsilon zeta."
    assert set(sources) == {1}


async def test_nothing_to_quote() -> None:
    assert await answer("What is BGP?") == ("", [])
    assert await answer("What is BGP?", "  \n") == ("", [])


async def test_the_embedding_finds_what_words_do_not() -> None:
    async def embed(texts: Sequence[str]) -> np.ndarray:
        # The question and the sentence on Lyon point one way, everything else another.
        near = [t is texts[0] or "Lyon" in t for t in texts]
        return np.array([[1.0, 0.0] if n else [0.0, 1.0] for n in near], dtype=np.float32)

    passage = "The bandwidth of the line was doubled. Traffic goes through Lyon in that case."
    assert (await answer("What about the bandwidth?", passage))[0].startswith("The bandwidth")
    text, _ = await answer("Where do packets flow?", passage, embed=embed)
    assert text == "Traffic goes through Lyon in that case."


async def test_there_is_no_model_to_complete_with() -> None:
    with pytest.raises(ProviderError) as caught:
        await ExtractiveProvider().complete(system="", text="", config=CONFIG)
    assert caught.value.permanent


PIECES = [
    "# Head\n",
    "\n",
    "The timer is 10. ",
    "It waits:\n",
    "- timer item\n",
    "1. step\n",
    "| timer | b |\n",
]
PIECES += [
    "|---|---|\n",
    "```\ntimer\n```\n",
    "interface timer\n",
    " ip address 1\n",
    "!\n",
    "}\n",
    "a {\n",
    "  timer;\n",
]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=30).map("".join), max_size=3))
async def test_whatever_the_text_every_quote_is_verbatim(texts: list[str]) -> None:
    await answer("How do I set the timer?", *texts)  # answer() asserts that no citation is dropped
