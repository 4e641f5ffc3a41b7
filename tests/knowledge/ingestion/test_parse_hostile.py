"""Hostile files, each parsed as a worker would, in the sandbox: it fails alone, with its reason, and soon."""

import io
import json
import string
import time
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knowledge.ingestion.parse import SUPPORTED_EXTENSIONS, ParseError, ParseLimits, parse_document
from knowledge.ingestion.sandbox import close_sandboxes, parse_in_sandbox
from tests.knowledge.ingestion import hostile

SECONDS = 30  # far above what any of these takes, far below what one that got through would
ARCHIVES = ("docx", "pptx", "xlsx", "epub")
KINDS = (*ARCHIVES, "pdf", "eml", "ipynb", "json", "html", "md", "csv", "yaml")


@pytest.fixture(scope="module", autouse=True)
def no_nursery_is_left():
    yield
    close_sandboxes()


def read(data: bytes, filename: str, **limits):
    begin = time.monotonic()
    try:
        return parse_in_sandbox(data=data, filename=filename, limits=ParseLimits(**limits))
    finally:
        assert time.monotonic() - begin < SECONDS


def refuse(data: bytes, filename: str, **limits) -> ParseError:
    with pytest.raises(ParseError) as caught:
        read(data, filename, **limits)
    assert str(caught.value).endswith(".")
    return caught.value


@pytest.mark.parametrize("kind", KINDS)
def test_the_honest_file_that_the_hostile_ones_are_made_from_is_read(kind):
    assert "Some words about routers." in read(hostile.make_honest(kind), f"a.{kind}").text


@pytest.mark.parametrize("kind", ARCHIVES)
def test_bombs_entities_and_parts_that_point_elsewhere(kind):
    wrong = {
        name: error.code
        for name, data, code in hostile.list_bombs()
        if name.endswith(kind) and (error := refuse(data, name)).code != code
    }
    assert wrong == {}
    assert "words" in read(hostile.make_honest(kind), f"next.{kind}").text


@pytest.mark.parametrize("kind", ARCHIVES)
def test_archives_inside_archives_are_never_opened(kind):
    nested = hostile.make_nested_archive()
    data = hostile.change_part(hostile.make_honest(kind), "media/a.zip", lambda _: nested)
    assert "words" in read(data, f"a.{kind}").text
    assert refuse(nested, f"a.{kind}").code == "wrong_type"


@pytest.mark.parametrize("kind", ARCHIVES)
def test_other_endings_and_plain_archives_are_named_as_what_they_are_not(kind):
    for other in set(ARCHIVES) - {kind}:
        assert refuse(hostile.make_honest(other), f"a.{kind}").code == "wrong_type"
    for other in ("txt", "md", "pdf", "json", "eml"):
        assert refuse(hostile.make_honest(kind), f"a.{other}").code == "wrong_type"


@pytest.mark.parametrize(
    "xml",
    [
        f"<!DOCTYPE a [{hostile.laugh()}]><a>&l8;</a>",
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x; visible</a>',
        f"<html><body><p>visible</p><svg><!DOCTYPE s [{hostile.laugh()}]><text>&l8;</text></svg></body></html>",
    ],
)
@pytest.mark.parametrize("filename", ["a.xml", "a.html"])
def test_entities_in_text_formats_are_text(xml, filename):
    text = read(xml.encode(), filename).text
    assert "root:" not in text
    assert "hahahaha" not in text
    assert len(text) < 2 * len(xml)


def test_yaml_aliases_and_merge_keys_never_grow():
    rest = "".join(
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    bomb = "a: &a [x, x]\n" + rest
    assert read(bomb.encode(), "a.yaml").text.strip() == bomb.strip()
    rest = "".join(
        f"{b}: &{b}\n  <<: [{', '.join([f'*{a}'] * 9)}]\n"
        for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    front = "title: Kept\na: &a {x: 1}\n" + rest
    parsed = read(f"---\n{front}---\n\nbody\n".encode(), "a.md", cpu_seconds=5)
    assert (parsed.title, parsed.text.strip()) == ("Kept", "body")


DEEP = 100_000


@pytest.mark.parametrize(
    ("filename", "data"),
    [
        ("a.html", b"<div>" * DEEP + b"deep" + b"</div>" * DEEP),
        ("b.html", b"<ul><li>x" * (DEEP // 5)),
        ("c.html", b"<table><tr><td>" * (DEEP // 5) + b"deep"),
        ("d.html", b"<table><tr>" + b"<td rowspan=60000 colspan=60000>x</td>" * 5000 + b"</tr></table>"),
        ("a.json", b"[" * DEEP + b"1" + b"]" * DEEP),
        pytest.param("b.json", b'{"a":' * DEEP + b"1" + b"}" * DEEP, marks=pytest.mark.long),
        ("a.jsonl", b"[" * DEEP + b"]" * DEEP + b"\n{}\n" + b'{"a":' * 50 + b"1" + b"}" * 50),
        ("a.yaml", b"[" * DEEP),
        ("b.yaml", b"\n".join(b" " * n + b"a:" for n in range(3000))),
        ("a.md", b"> " * DEEP + b"deep"),
        ("b.md", b"- " * 20_000 + b"deep"),
        ("c.md", b"[" * DEEP + b"deep" + b"]" * DEEP),
        ("d.md", (b"|" + b"a|" * 5000 + b"\n|" + b"-|" * 5000 + b"\n") * 4),
        ("e.md", b"---\n" + b"[" * 15_000 + b"\n---\n\nwords"),
        ("a.rst", b"\n".join(b" " * n + b".. note::\n" for n in range(2000)) + b"\nwords"),
        ("b.rst", b":a:`" * 50_000),
        pytest.param(
            "a.csv",
            b",".join(b"c%d" % n for n in range(1_000_000)) + b"\n" + b"1," * 1_000_000,
            marks=pytest.mark.long,
        ),
        ("b.csv", b'a,"' + b'"",' * 100_000),
        ("c.csv", b"'\"" * 20_000 + b"\n1,2"),
        ("a.conf", b"{\n" * DEEP),
        ("b.conf", b"set " * DEEP),
        ("c.conf", b"[" * DEEP + b"\n" + b"a=" * DEEP),
        ("d.conf", b"banner " + b"^C" * DEEP),
        ("a.py", b"def " + b"a" * 2_000_000),
        ("a.c", b"int " + b"a<b," * 200_000 + b"(\n" + b"a " * 100_000 + b"(\n"),
        ("a.java", b"public " + b"x " * 200_000),
        ("a.ts", b"export const a = " + b"(" * DEEP),
        ("a.txt", b"1." * DEEP + b"\n\n" + b"A " * DEEP + b"\n\n" + b"=" * DEEP + b"\n" + b"x   " * DEEP),
        ("b.txt", b"- a\n" * DEEP),
        ("c.txt", b"\x1b[" * DEEP + b"words"),
        (
            "a.eml",
            b"Subject: a\nContent-Type: multipart/mixed; boundary=b\n\n"
            + b"--b\nContent-Type: multipart/mixed; boundary=b\n\n" * 500,
        ),
        ("b.eml", b"Subject: " + b"=?utf-8?q?a?= " * 3000 + b"\n\nwords"),
        ("c.eml", b"Subject: a\nTo: " + b"a@b, " * 3000 + b"<" * 3000 + b"\n\nwords"),
        ("a.ipynb", b'{"cells":' + b"[" * DEEP),
        ("a.log", b"\x1b[31m" * DEEP + b"words"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_depth_width_and_repetition_end_soon(filename, data):
    """Read or refused, in a few seconds of work and 512 MB: the bound is what would fail."""
    try:
        assert read(data, filename, cpu_seconds=8, memory_bytes=512 * 2**20).text
    except ParseError as error:
        assert error.code in ("too_deep", "damaged", "no_text", "wrong_type", "too_large"), str(error)


def test_page_trees_that_lie_or_turn_in_circles():
    page = "BT /F1 12 Tf 50 700 Td (words) Tj ET"
    for data in (
        hostile.make_pdf([page], kids="2 0 R 10 0 R"),
        hostile.make_pdf([page], count=2_000_000_000),
        hostile.make_pdf([page], count=-1),
        hostile.make_pdf([page], kids=" ".join(["10 0 R"] * 2500), count=2500),
        hostile.make_pdf(["q " * 200_000 + page]),
        hostile.make_pdf([page.replace("(words)", "(" + "w" * 200_000 + ")")]),
        hostile.make_pdf([page]).replace(b"/Contents 11 0 R", b"/Contents 10 0 R"),
        hostile.make_pdf([page]).replace(b"/Length ", b"/Length 11 0 R %"),
        hostile.make_pdf([page]).replace(b"startxref\n", b"startxref\n9"),
    ):
        try:
            assert len(read(data, "a.pdf", cpu_seconds=8).text) < 10**6
        except ParseError as error:
            assert error.code in ("damaged", "too_large", "no_text"), str(error)


def test_a_pdf_of_ten_thousand_pages_is_refused_at_once_with_its_number():
    data = hostile.make_pdf(["BT ET"] * 10_000)
    begin = time.monotonic()
    error = refuse(data, "a.pdf")
    assert error.code == "too_large"
    assert "10,000 pages" in str(error)
    assert time.monotonic() - begin < 10


def test_pages_that_are_pictures_are_passed_over_where_others_hold_text():
    scan = hostile.make_scan(2).replace(
        b"q 500 0 0 700 50 50 cm /X Do Q", b"BT /F1 9 Tf 9 9 Td (wo) Tj ET ", 1
    )
    parsed = read(scan, "a.pdf")
    assert (parsed.text, len(parsed.pages)) == ("wo", 2)


def test_scans_say_that_they_hold_no_text_and_what_to_do():
    error = refuse(hostile.make_scan(), "scan.pdf")
    assert error.code == "no_text"
    assert "OCR" in str(error)
    assert "pictures" in str(error)


@pytest.mark.parametrize("kind", ["docx", "pptx", "xlsx", "epub", "pdf", "eml", "ipynb", "json"])
def test_truncated_files_are_damaged_and_nothing_worse(kind):
    data = hostile.make_honest(kind)
    for share in (0.1, 0.5, 0.9, 0.99):
        try:
            read(data[: int(len(data) * share)], f"a.{kind}")
        except ParseError as error:
            assert error.code in ("damaged", "no_text", "wrong_type"), str(error)


def test_an_encrypted_pdf_says_so():
    # The standard handler of 40 bits with keys that no empty password fits.
    data = hostile.make_pdf(["BT ET"]).replace(
        b"/Root 1 0 R",
        b"/Root 1 0 R /ID [<00><00>] /Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <"
        + b"61" * 32
        + b"> /U <"
        + b"62" * 32
        + b"> >>",
    )
    assert refuse(data, "a.pdf").code == "encrypted"


@pytest.mark.parametrize(
    "name", ["a\0b.md", "a\nb.md", "\x1b[31m.md", "\udcff.md", "…/../../x.md", "a" * 5000 + ".md"]
)
def test_names_with_control_characters_do_no_harm(name):
    assert read(b"# Words", name).title == "Words"


@pytest.mark.parametrize(
    "data",
    [
        b"a\0b\0\xed\xa0\x80 words",
        b"\xff\xfe\x00\xd8words",
        b"words \xc3\x28 \xf0\x9f",
        b'{"a": "\\ud800 words"}',
    ],
)
@pytest.mark.parametrize("ending", ["txt", "md", "json", "jsonl", "csv", "html", "ipynb", "eml", "conf"])
def test_nul_bytes_and_half_characters_never_reach_the_text(data, ending):
    try:
        parsed = read(data, f"a.{ending}")
    except ParseError:
        return
    assert parsed.text.encode()
    assert "\0" not in parsed.text


def test_lone_surrogates_in_json_are_dropped():
    assert read(b'[{"a": "x\\ud800y"}, {"a": "z"}]', "a.json").text == "a: xy\na: z"


@pytest.mark.parametrize("kind", ["docx", "xlsx", "pptx", "epub"])
def test_a_document_that_takes_too_much_memory_fails_alone(kind):
    """XML of a few MB whose tree takes hundreds."""
    part = hostile.MAIN_PART[kind]

    def grow(xml: bytes) -> bytes:
        end = xml.rindex(b"</")
        return xml[:end] + b"<a b='c'/>" * 2_000_000 + xml[end:]

    data = hostile.change_part(hostile.make_honest(kind), part, grow)
    try:
        assert "words" in read(data, f"a.{kind}", memory_bytes=192 * 2**20, cpu_seconds=10).text
    except ParseError as error:
        assert error.code in ("out_of_memory", "damaged", "too_large"), str(error)
    assert "words" in read(hostile.make_honest(kind), f"next.{kind}").text


TEXTUAL = sorted(ending for ending in SUPPORTED_EXTENSIONS if ending[1:] not in (*ARCHIVES, "pdf"))
# Pieces that the parsers' patterns look for, to be repeated and mixed.
PIECES = st.sampled_from(
    [
        *string.punctuation,
        " ",
        "\n",
        "\t",
        "a",
        "1",
        "ab ",
        "1.",
        "- ",
        "::",
        "```",
        "|--|",
        "<td>",
        "</",
        "&x;",
        "{",
        "}",
    ]
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    ending=st.sampled_from(TEXTUAL),
    parts=st.lists(
        st.tuples(st.lists(PIECES, min_size=1, max_size=6).map("".join), st.sampled_from([1, 3, 2000])),
        max_size=4,
    ),
)
def test_no_pattern_of_a_parser_explodes(ending, parts):
    """In this process: 50 KB of anything takes well below a second of work."""
    data = "".join(piece * times for piece, times in parts)[:50_000].encode()
    begin = time.process_time()
    try:
        parsed = parse_document(data=data, filename=f"a{ending}")
        position = 0
        for block in parsed.blocks:
            assert position <= block.start <= block.end <= len(parsed.text)
            position = block.end
    except (ParseError, RecursionError):
        pass
    assert time.process_time() - begin < 2


def test_archives_of_random_bytes_are_damaged():
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name in ("word/document.xml", "ppt/presentation.xml", "xl/workbook.xml", "[Content_Types].xml"):
            archive.writestr(name, json.dumps([1, 2, 3]))
    for kind in ("docx", "pptx", "xlsx"):
        assert refuse(target.getvalue(), f"a.{kind}").code == "damaged"
