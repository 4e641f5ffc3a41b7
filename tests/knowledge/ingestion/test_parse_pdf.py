"""PDF, from files written here byte by byte."""

from collections.abc import Sequence

import pytest

from knowledge.ingestion.chunk import chunk_document
from knowledge.ingestion.parse import ParseError, ParseLimits, parse_document

Line = tuple[
    str, int, int, str
]  # (text, y in points from below, size in points, font: F1, F2 bold, F3 monospaced)


def write_pdf(pages: Sequence[Sequence[Line]], *, title: str = "", encrypted: bool = False) -> bytes:
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"",  # the page tree, when the pages' numbers are known
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica-Bold >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Courier >>",
        b"<< /Title (%s) >>" % title.encode(),
        b"<< /Filter /Standard /V 1 /R 2 /P -44 /O <%s> /U <%s> >>" % (b"11" * 32, b"22" * 32),
    ]
    numbers = []
    for lines in pages:
        drawing = b"".join(
            b"BT /%s %d Tf 72 %d Td (%s) Tj ET\n" % (font.encode(), size, y, text.encode("latin-1"))
            for text, y, size, font in lines
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(drawing), drawing))
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R /F2 4 0 R /F3 5 0 R >> >> >>" % len(objects)
        )
        numbers.append(len(objects))
    objects[1] = b"<< /Type /Pages /Kids [%s] /Count %d >>" % (
        b" ".join(b"%d 0 R" % number for number in numbers),
        len(numbers),
    )
    data, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    protection = b" /Encrypt 7 0 R /ID [<00><00>]" if encrypted else b""
    count, start = len(objects) + 1, len(data)
    data += b"xref\n0 %d\n0000000000 65535 f \n%s" % (count, table)
    data += b"trailer << /Size %d /Root 1 0 R /Info 6 0 R%s >>\n" % (count, protection)
    return data + b"startxref\n%d\n%%%%EOF" % start


def write_lines(*lines: str, top: int = 700, size: int = 11, font: str = "F1", step: int = 14) -> list[Line]:
    return [(line, top - index * step, size, font) for index, line in enumerate(lines)]


PAGE_1 = [
    *write_lines("Core Upgrade Plan", top=740, size=20),
    *write_lines("1 Scope", top=700, size=14),
    *write_lines("The upgrade replaces both core routers in", "Frankfurt during one night.", top=680),
    *write_lines("It is announced two weeks before.", top=636),
    *write_lines("- drain the links", "- swap the router", "- undrain the links", top=608),
]
PAGE_2 = [
    *write_lines("2 Rollback", top=740, size=14),
    *write_lines("Put the old router back and run these commands:", top=720),
    *write_lines("show bgp summary", "show ospf neighbor", top=690, font="F3", size=11),
]


def test_pages_paragraphs_headings_lists_and_code():
    parsed = parse_document(data=write_pdf([PAGE_1, PAGE_2]), filename="plan.pdf")
    assert parsed.media_type == "application/pdf"
    assert parsed.title == "Core Upgrade Plan"
    assert [(heading.level, heading.title) for heading in parsed.headings] == [
        (1, "Core Upgrade Plan"),
        (2, "1 Scope"),
        (2, "2 Rollback"),
    ]
    assert [(block.kind, parsed.text[block.start : block.end]) for block in parsed.blocks] == [
        ("heading", "Core Upgrade Plan"),
        ("heading", "1 Scope"),
        ("paragraph", "The upgrade replaces both core routers in\nFrankfurt during one night."),
        ("paragraph", "It is announced two weeks before."),
        ("list", "- drain the links\n- swap the router\n- undrain the links"),
        ("heading", "2 Rollback"),
        ("paragraph", "Put the old router back and run these commands:"),
        ("code", "show bgp summary\nshow ospf neighbor"),
    ]
    assert parsed.pages == (0, parsed.text.index("2 Rollback"))


def test_chunks_know_the_page_they_begin_on():
    parsed = parse_document(data=write_pdf([PAGE_1, [], PAGE_2]), filename="plan.pdf")
    chunks = chunk_document(parsed, count_tokens=lambda text: len(text) // 3)
    assert [(chunk.page, chunk.heading_path[-1]) for chunk in chunks] == [(1, "1 Scope"), (3, "2 Rollback")]


def test_a_paragraph_goes_on_over_the_page_break():
    first = write_lines("One paragraph begins on the", "first page and", top=700)
    second = [*write_lines("ends on the second.", top=740), *write_lines("Another begins.", top=690)]
    parsed = parse_document(data=write_pdf([first, second]), filename="a.pdf")
    assert [parsed.text[block.start : block.end] for block in parsed.blocks] == [
        "One paragraph begins on the\nfirst page and\nends on the second.",
        "Another begins.",
    ]
    assert parsed.pages == (0, parsed.text.index("ends on"))


def test_a_bold_line_is_a_heading_only_where_sections_have_no_size_of_their_own():
    body = [
        *write_lines("Port State", top=660, font="F2"),
        *write_lines("xe-0 is up", "and xe-1 is down", "since Monday.", top=630),
    ]
    sized = [*write_lines("Guide", top=740, size=20), *write_lines("Part", top=700, size=14), *body]
    parsed = parse_document(data=write_pdf([sized]), filename="a.pdf")
    assert [heading.title for heading in parsed.headings] == ["Guide", "Part"]
    parsed = parse_document(data=write_pdf([body]), filename="a.pdf")
    assert [heading.title for heading in parsed.headings] == ["Port State"]


def test_running_headers_and_footers_are_left_out():
    pages = [
        [
            *write_lines("Acme confidential", top=770),
            *write_lines(f"Only page {name} says this and nothing else.", top=600),
            *write_lines(f"Page {number} of 4", top=40),
        ]
        for number, name in enumerate(("alpha", "beta", "gamma", "delta"), 1)
    ]
    parsed = parse_document(data=write_pdf(pages), filename="a.pdf")
    assert "confidential" not in parsed.text
    assert "of 4" not in parsed.text
    assert all(f"page {name}" in parsed.text for name in ("alpha", "beta", "gamma", "delta"))
    assert len(parsed.pages) == 4


def test_the_title_is_the_metadata_unless_a_program_put_it_there():
    assert (
        parse_document(data=write_pdf([PAGE_1], title="Night work"), filename="a.pdf").title == "Night work"
    )
    data = write_pdf([PAGE_1], title="Microsoft Word - draft3.docx")
    assert parse_document(data=data, filename="a.pdf").title == "Core Upgrade Plan"


def refuse(data: bytes, limits: ParseLimits | None = None) -> ParseError:
    with pytest.raises(ParseError) as caught:
        parse_document(data=data, filename="a.pdf", limits=limits or ParseLimits())
    return caught.value


def test_a_scan_is_refused_with_the_advice_to_run_ocr():
    error = refuse(write_pdf([[], []]))
    assert error.code == "no_text"
    assert "OCR" in str(error)


def test_a_protected_file_is_refused():
    assert refuse(write_pdf([PAGE_1], encrypted=True)).code == "encrypted"


def test_too_many_pages_are_refused():
    error = refuse(write_pdf([PAGE_1, PAGE_2]), ParseLimits(max_pages=1))
    assert error.code == "too_large"
    assert "2 pages" in str(error)


def test_a_truncated_file_is_damaged():
    assert refuse(write_pdf([PAGE_1])[:300]).code == "damaged"
    assert refuse(b"%PDF-1.7\n" + bytes(range(256)) * 20).code == "damaged"


def test_pages_without_text_are_named():
    def note(*pages):
        return parse_document(data=write_pdf(pages), filename="plan.pdf").note

    assert note(PAGE_1, PAGE_2) == ""
    assert note(PAGE_1, [], PAGE_2) == (
        "Page 2 of 3 holds no text and was skipped: where they are scans, run OCR on the file and upload the result."
    )
    assert note([], PAGE_1, [], [], [], PAGE_2, []).startswith(
        "Pages 1, 3–5, 7 of 7 hold no text and were skipped:"
    )
    many = note(*([PAGE_1, []] * 30))
    assert "39, 40" not in many and "38, 40, …" in many and len(many) < 300
