from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knowledge.answering.citations import AnswerAssembler, Citation, Piece
from knowledge.llm.base import BlockEnd, Cited, Passage, TextDelta

PASSAGES = [
    Passage(1, "Edge", "edge.md", "", "The hold time is\n30 seconds. Keepalive is 10."),
    Passage(2, "OSPF", "ospf.md", "", "Hello is 10 seconds."),
]


def feed(assembler: AnswerAssembler, *events: TextDelta | Cited | BlockEnd) -> list[Piece]:
    return [piece for event in events for piece in assembler.feed(event)]


def test_a_block_goes_out_when_its_citations_are_checked() -> None:
    assembler = AnswerAssembler(PASSAGES)
    assert (
        feed(assembler, TextDelta("Thirty "), TextDelta("seconds."), Cited(1, "hold time is 30 seconds."))
        == []
    )
    assert assembler.text == ""
    assert assembler.feed(BlockEnd()) == [Piece("Thirty seconds.", [Citation(1, 0, 15)])]


def test_offsets_are_in_the_whole_answer_and_leave_white_space_out() -> None:
    assembler = AnswerAssembler(PASSAGES)
    feed(assembler, TextDelta("First: "), BlockEnd())
    pieces = feed(assembler, Cited(2, "Hello is 10"), TextDelta("\n\nten "), BlockEnd())
    assert pieces == [Piece("\n\nten ", [Citation(2, 9, 12)])]
    assert assembler.text == "First: \n\nten "
    assert assembler.text[9:12] == "ten"
    assert assembler.citations == (Citation(2, 9, 12),)


def test_citations_that_do_not_hold_are_dropped_and_counted() -> None:
    assembler = AnswerAssembler(PASSAGES)
    bad = [
        Cited(3, "Hello is 10"),
        Cited(0, "x"),
        Cited(2, "Hello is 11"),
        Cited(1, "Hello is 10"),
        Cited(2, " "),
    ]
    pieces = feed(assembler, TextDelta("Ten."), *bad, Cited(2, "Hello is 10"), BlockEnd())
    assert pieces == [Piece("Ten.", [Citation(2, 0, 4)])]
    assert assembler.dropped == 5


def test_one_source_is_cited_once_for_a_span() -> None:
    assembler = AnswerAssembler(PASSAGES)
    cites = [Cited(1, "30 seconds."), Cited(1, "Keepalive"), Cited(2, "Hello")]
    pieces = feed(assembler, TextDelta("x"), *cites, BlockEnd())
    assert pieces[0].citations == [Citation(1, 0, 1), Citation(2, 0, 1)]
    assert assembler.dropped == 0


def test_a_blank_block_cannot_be_cited() -> None:
    assembler = AnswerAssembler(PASSAGES)
    assert feed(assembler, TextDelta(" \n"), Cited(2, "Hello"), BlockEnd()) == [Piece(" \n", [])]
    assert assembler.dropped == 1
    assert feed(assembler, BlockEnd()) == []


def test_long_prose_without_citations_streams_by_sentences() -> None:
    assembler = AnswerAssembler(PASSAGES)
    sentence = "The documents say nothing about that, in any of their many parts. "
    pieces = feed(assembler, *[TextDelta(sentence)] * 12)
    assert pieces and all(piece.text.endswith(". ") for piece in pieces)
    late = feed(assembler, Cited(2, "Hello"), BlockEnd())
    assert assembler.text == sentence * 12
    assert late[-1].citations == [Citation(2, 0, len(assembler.text.rstrip()))]


def test_code_is_not_cut_in_the_middle() -> None:
    assembler = AnswerAssembler(PASSAGES)
    assert feed(assembler, TextDelta("```\n" + "Line one. Line two. " * 60)) == []


def test_finish_gives_out_what_a_stream_left_open() -> None:
    assembler = AnswerAssembler(PASSAGES)
    feed(assembler, TextDelta("No end"))
    assert assembler.finish() == [Piece("No end", [])]
    assert assembler.finish() == []


def test_restart_forgets_the_answer() -> None:
    assembler = AnswerAssembler(PASSAGES)
    feed(assembler, TextDelta("Old."), Cited(2, "Hello"), BlockEnd(), TextDelta("more"), Cited(9, "x"))
    assembler.restart()
    assert (assembler.text, assembler.citations) == ("", ())
    assert feed(assembler, TextDelta("New."), BlockEnd()) == [Piece("New.", [])]


EVENTS = st.one_of(
    st.text(alphabet="ab. \n`A", max_size=300).map(TextDelta),
    st.sampled_from([Cited(1, "30 seconds."), Cited(2, "no"), BlockEnd()]),
)


# On a busy machine hypothesis takes a second to read its table of characters.
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(EVENTS, max_size=30))
def test_pieces_joined_are_the_text_and_spans_lie_inside(events: list[TextDelta | Cited | BlockEnd]) -> None:
    assembler = AnswerAssembler(PASSAGES)
    pieces = [*feed(assembler, *events), *assembler.finish()]
    assert "".join(p.text for p in pieces) == assembler.text
    assert assembler.text == "".join(e.text for e in events if isinstance(e, TextDelta))
    for citation in assembler.citations:
        span = assembler.text[citation.start : citation.end]
        assert span and span == span.strip()
