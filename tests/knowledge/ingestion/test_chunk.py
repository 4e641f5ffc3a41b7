"""What every chunking must keep, whatever the document and the tokenizer; and what makes chunks good."""

import re
import time
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from knowledge.ingestion.chunk import TINY_TOKENS, ChunkConfig, chunk_document
from knowledge.ingestion.cut import split_sentences
from knowledge.ingestion.parse import Block, Heading, ParsedDocument, parse_document


def count_words(text: str) -> int:
    """Like a WordPiece tokenizer in what matters: pieces of words and single marks, blanks are free."""
    return sum((len(word) + 4) // 5 if word[0].isalnum() else 1 for word in re.findall(r"\w+|[^\w\s]", text))


def count_characters(text: str) -> int:
    """Unlike one: blanks count and the whole is more than the sum of its parts."""
    return len(text) // 4


def count_worst(text: str) -> int:
    """A tokenizer that charges for joining: two pieces together cost one more than apart."""
    return len(text.split()) * 2 - 1 if text.split() else 0


def chunk_markdown(text: str, config: ChunkConfig | None = None, filename: str = "a.md"):
    parsed = parse_document(data=text.encode(), filename=filename)
    return parsed, chunk_document(parsed, count_tokens=count_words, config=config or ChunkConfig())


def check_invariants(parsed: ParsedDocument, chunks, count, config: ChunkConfig) -> None:
    text = parsed.text
    covered = 0
    for ordinal, chunk in enumerate(chunks):
        assert chunk.ordinal == ordinal
        assert text[chunk.start : chunk.end] == chunk.text
        assert chunk.text.strip()
        assert chunk.tokens == count(chunk.text)
        # One character is the least there is, whatever it counts.
        assert chunk.tokens <= config.max_tokens or chunk.end - chunk.start == 1
        assert not text[covered : chunk.start].strip()
        if ordinal:
            assert chunk.start > chunks[ordinal - 1].start
            assert chunk.end > chunks[ordinal - 1].end
            check_overlap(parsed, chunks[ordinal - 1], chunk, count, config)
        covered = max(covered, chunk.end)
    assert not text[covered:].strip()


def check_overlap(parsed, before, after, count, config) -> None:
    if after.start >= before.end:
        return
    overlap = parsed.text[after.start : before.end]
    assert count(overlap) <= config.overlap_tokens
    assert not any(after.start < heading.start < before.end for heading in parsed.headings)
    block = next(block for block in parsed.blocks if block.start <= after.start < block.end)
    assert block.kind == "paragraph"
    sentences = split_sentences(parsed.text, block.start, block.end)
    assert after.start in {start for start, _ in sentences}
    assert before.end in {end for _, end in sentences}


words = st.text(alphabet="abcdefgh .!?\"'-1\u00e9漢", min_size=1, max_size=60)
paragraphs = st.lists(words, min_size=1, max_size=12).map(lambda parts: ". A".join(parts))
elements = st.one_of(
    paragraphs,
    st.tuples(st.integers(1, 4), st.text(alphabet="abc ", min_size=1, max_size=12)).map(
        lambda pair: "#" * pair[0] + " h" + pair[1]
    ),
    st.lists(words, min_size=1, max_size=9).map(lambda items: "\n".join("- i" + item for item in items)),
    st.lists(words, min_size=1, max_size=9).map(lambda lines: "```\n" + "\n".join(lines) + "\n```"),
    st.lists(words, min_size=1, max_size=6).map(
        lambda cells: "| a | b |\n|---|---|\n" + "\n".join(f"| {cell} | x |" for cell in cells)
    ),
    st.just("This leads in:"),
    st.text(alphabet="xyz", min_size=90, max_size=400),
)
documents = st.lists(elements, min_size=1, max_size=25).map("\n\n".join).filter(str.strip)
configs = st.builds(ChunkConfig, max_tokens=st.integers(24, 90), overlap_tokens=st.integers(0, 12))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(
    text="```\n1\n1\n1\n```\n\n1?1. A1. A1. A1. A?\n\nThis leads in:\n\n| a | b |\n|---|---|\n| 1 | x |",
    config=ChunkConfig(24, 2),
    count=count_words,
)
@given(text=documents, config=configs, count=st.sampled_from([count_words, count_characters, count_worst]))
def test_invariants_hold_for_markdown(text, config, count):
    parsed = parse_document(data=text.encode(), filename="a.md")
    check_invariants(parsed, chunk_document(parsed, count_tokens=count, config=config), count, config)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    text=documents,
    config=configs,
    filename=st.sampled_from(["a.txt", "a.rst", "a.html", "a.csv", "a.conf", "a.py"]),
)
def test_invariants_hold_for_any_text_under_any_ending(text, config, filename):
    parsed = parse_document(data=text.encode(), filename=filename)
    check_invariants(
        parsed, chunk_document(parsed, count_tokens=count_words, config=config), count_words, config
    )


@settings(max_examples=100, deadline=None)
@given(text=st.text(alphabet="ab.!? \n\t", min_size=1, max_size=300), data=st.data(), config=configs)
def test_invariants_hold_for_any_blocks_and_headings(text, data, config):
    edges = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=10)))
    kinds = st.sampled_from(["paragraph", "list", "table", "code", "config", "heading"])
    pairs = list(zip(edges[::2], edges[1::2], strict=False))
    blocks = tuple(Block(start, end, data.draw(kinds)) for start, end in pairs)
    starts = sorted(data.draw(st.sets(st.integers(0, len(text) - 1), max_size=6)))
    headings = tuple(Heading(start, data.draw(st.integers(1, 5)), f"h{start}") for start in starts)
    parsed = ParsedDocument("t", text, "text/plain", headings, blocks, ())
    chunks = chunk_document(parsed, count_tokens=count_words, config=config)
    assert "".join(dict.fromkeys(text)).strip() == "" or chunks
    covered = set()
    for chunk in chunks:
        assert text[chunk.start : chunk.end] == chunk.text
        assert chunk.tokens <= config.max_tokens
        covered.update(range(chunk.start, chunk.end))
    assert all(index in covered for index, character in enumerate(text) if not character.isspace())
    assert [chunk.start for chunk in chunks] == sorted(chunk.start for chunk in chunks)


def make_sentences(count: int, start: int = 0) -> str:
    return " ".join(f"Sentence number {n} has six words." for n in range(start, start + count))


@settings(max_examples=60, deadline=None)
@example(sizes=[(1, 4), (1, 0), (1, 0)])
@given(sizes=st.lists(st.tuples(st.integers(1, 2), st.integers(0, 30)), min_size=2, max_size=12))
def test_chunks_cross_a_subject_boundary_only_from_a_tiny_section(sizes):
    text = "\n\n".join(
        f"{'#' * level} Part {n}\n\n{make_sentences(size)}" for n, (level, size) in enumerate(sizes)
    )
    parsed, chunks = chunk_markdown(text)
    for chunk in chunks:
        inside = [heading for heading in parsed.headings if chunk.start < heading.start < chunk.end]
        # Of each section that is left within the chunk: what went before it may be tiny too.
        begun = [chunk.start, *(heading.start for heading in inside)]
        for start, heading in zip(begun, inside, strict=False):
            assert count_words(parsed.text[start : heading.start]) < TINY_TOKENS
        first = next((heading for heading in parsed.headings if heading.start == chunk.start), None)
        if first:
            assert all(heading.level >= first.level for heading in inside)


def test_lists_tables_and_code_stay_whole_where_they_fit():
    items = "\n".join(f"- item {n} of the list" for n in range(20))
    rows = "| a | b |\n|---|---|\n" + "\n".join(f"| {n} | value |" for n in range(20))
    code = "```\n" + "\n".join(f"show interface {n}" for n in range(30)) + "\n```"
    _, chunks = chunk_markdown(
        f"# T\n\n{make_sentences(12)}\n\n{items}\n\n{rows}\n\n{make_sentences(9)}\n\n{code}\n"
    )
    for block in (items, rows, code):
        assert count_words(block) <= 220
        assert sum(block in chunk.text for chunk in chunks) == 1


def test_a_long_list_is_cut_between_its_items_into_parts_of_like_size():
    items = [f"- item {n}: {make_sentences(3, n)}\n  and more of item {n}" for n in range(20)]
    _, chunks = chunk_markdown("# T\n\n" + "\n".join(items))
    assert len(chunks) > 2
    assert all(chunk.text.startswith(("# T", "- item")) for chunk in chunks)
    assert max(chunk.tokens for chunk in chunks) < 2 * min(chunk.tokens for chunk in chunks)


def test_a_lead_in_stays_with_what_it_leads_in_and_a_heading_is_never_last():
    code = "```\n" + "\n".join(f"show interface {n}" for n in range(40)) + "\n```"
    _, chunks = chunk_markdown(
        f"# T\n\n{make_sentences(20)}\n\nRun these commands:\n\n{code}\n\n### Next\n\n{make_sentences(20)}",
        ChunkConfig(max_tokens=220),
    )
    assert [chunk.text.split("\n")[0][:9] for chunk in chunks] == ["# T", "Run these", "### Next"]


def test_a_long_paragraph_is_cut_at_sentences_with_whole_sentences_repeated():
    _, chunks = chunk_markdown(f"# T\n\n{make_sentences(80)}")
    assert len(chunks) >= 3
    for before, after in pairwise(chunks):
        overlap = before.text[after.start - before.start :]
        assert re.fullmatch(r"(Sentence number \d+ has six words\. ?){1,4}", overlap)
        assert count_words(overlap) <= ChunkConfig().overlap_tokens


def test_no_overlap_into_another_section():
    text = f"# A\n\n{make_sentences(20)}\n\n# B\n\n{make_sentences(20, 50)}"
    _, chunks = chunk_markdown(text, ChunkConfig(max_tokens=220))
    assert [chunk.heading_path for chunk in chunks] == [("A",), ("B",)]
    assert chunks[1].text.startswith("# B")


def test_heading_paths():
    body = make_sentences(8)
    text = (
        f"# T\n\n## A\n\n{body}\n\n### A1\n\n{body}\n\n### A2\n\n{body}\n\n## B\n\nShort.\n\n## C\n\n{body}"
    )
    _, chunks = chunk_markdown(text, ChunkConfig(max_tokens=120))
    assert [chunk.heading_path for chunk in chunks] == [
        ("T", "A"),
        ("T", "A", "A1"),
        ("T", "A", "A2"),
        ("T",),  # B is tiny and shares its chunk with C: what they have in common
    ]
    assert chunks[0].text.startswith("# T\n\n## A\n")
    assert chunks[3].text.startswith("## B\n")


def test_subsections_share_a_chunk_while_it_is_small():
    text = "## A\n\n" + "\n\n".join(f"### A{n}\n\n{make_sentences(3)}" for n in range(3))
    _, chunks = chunk_markdown(text)
    assert [(chunk.heading_path, chunk.tokens) for chunk in chunks] == [(("A",), count_words(text))]


def test_rows_of_a_table_of_values_stay_whole():
    rows = "Device,Port,Note\n" + "".join(f"sw{n},{n},uplink to rack {n}\n" for n in range(100))
    parsed = parse_document(data=rows.encode(), filename="a.csv")
    chunks = chunk_document(parsed, count_tokens=count_words)
    assert len(chunks) > 3
    for chunk in chunks:
        assert chunk.kind == "table"
        assert all(
            re.fullmatch(r"Device: sw\d+; Port: \d+; Note: uplink to rack \d+", row)
            for row in chunk.text.split("\n")
        )


def test_a_stanza_carries_its_name():
    acl = "ip access-list extended LONG\n" + "".join(
        f" {n} permit tcp any host 192.0.2.{n} eq 443\n" for n in range(60)
    )
    parsed = parse_document(data=f"hostname r1\n!\n{acl}!\n".encode(), filename="r1.cfg")
    chunks = chunk_document(parsed, count_tokens=count_words)
    assert len(chunks) > 2
    assert {chunk.heading_path for chunk in chunks[1:]} == {("ip access-list extended LONG",)}


def test_pages_are_those_that_hold_the_start():
    text = f"{make_sentences(30)}\n\n{make_sentences(30)}\n\n{make_sentences(30)}"
    starts = (0, text.index("\n\n") + 2, text.rindex("\n\n") + 2)
    blocks = tuple(Block(start, start + len(make_sentences(30)), "paragraph") for start in starts)
    parsed = ParsedDocument("t", text, "application/pdf", (), blocks, starts)
    chunks = chunk_document(parsed, count_tokens=count_words)
    for chunk in chunks:
        assert chunk.page == sum(start <= chunk.start for start in starts)
    assert {chunk.page for chunk in chunks} == {1, 2, 3}


def test_a_word_that_a_tokenizer_calls_one_token_is_still_cut():
    parsed = parse_document(data=b"x" * 100_000, filename="a.txt")
    chunks = chunk_document(parsed, count_tokens=lambda text: len(text.split()))
    assert max(len(chunk.text) for chunk in chunks) < 4000


def test_an_empty_text_has_no_chunks():
    assert (
        chunk_document(ParsedDocument("t", " \n ", "text/plain", (), (), ()), count_tokens=count_words) == []
    )


def test_impossible_sizes_are_refused():
    for sizes in ((4, 0), (100, 51), (100, -1)):
        with pytest.raises(ValueError, match="max_tokens"):
            ChunkConfig(*sizes)


def test_the_work_of_counting_grows_linearly():
    def work(repetitions: int) -> int:
        counted = 0

        def count(text: str) -> int:
            nonlocal counted
            counted += len(text)
            return count_words(text)

        section = f"## Part\n\n{make_sentences(60)}\n\n- item\n- item\n\n```\n{'code line' * 9}\n```\n\n"
        parsed = parse_document(data=(section * repetitions).encode(), filename="a.md")
        chunk_document(parsed, count_tokens=count)
        return counted

    assert work(80) < 8.5 * work(10)
    assert work(10) < 6 * 10 * 2500


def test_parsing_and_chunking_without_the_tokenizer_are_fast():
    lists = "- item one\n- item two\n\n```\n" + "code line " * 20 + "\n```"
    section = f"## Part\n\n{make_sentences(40)}\n\n{make_sentences(20)}\n\n{lists}\n\n"
    data = (section * 400).encode()
    started = time.perf_counter()
    parsed = parse_document(data=data, filename="a.md")
    chunk_document(parsed, count_tokens=lambda text: len(text) // 5)
    # Measured above 2 MB/s; a tenth of that leaves room for a busy machine and still catches quadratic work.
    assert len(data) / (time.perf_counter() - started) > 200_000


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Use 10.0.0.1 or v1.2. Then stop.", ["Use 10.0.0.1 or v1.2.", "Then stop."]),
        (
            "Drain it, e.g. Telvia, first. See fig. 3 below.",
            ["Drain it, e.g. Telvia, first.", "See fig. 3 below."],
        ),
        ('He said "go." Then left (at 5.) Done.', ['He said "go."', "Then left (at 5.)", "Done."]),
        ("1. Stop it. 2. Start it.", ["1. Stop it.", "2. Start it."]),
        ("First\nline. Second\n\n", ["First\nline.", "Second"]),
        ("停止。启动！好", ["停止。", "启动！", "好"]),
        ("J. Smith wrote it. It holds.", ["J. Smith wrote it.", "It holds."]),
        ("", []),
    ],
)
def test_sentences(text, sentences):
    assert [text[start:end] for start, end in split_sentences(text)] == sentences
