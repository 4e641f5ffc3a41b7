"""Word documents, written by python-docx and then spoiled by hand."""

import io
import zipfile

import docx
import pytest
from docx.oxml import OxmlElement
from docx.oxml.ns import qn

from knowledge.ingestion.parse import ParseError, ParseLimits, parse_document


def save(document) -> bytes:
    target = io.BytesIO()
    document.save(target)
    return target.getvalue()


def blocks_of(parsed):
    return [(block.kind, parsed.text[block.start : block.end]) for block in parsed.blocks]


def refuse(data: bytes, limits: ParseLimits | None = None) -> ParseError:
    with pytest.raises(ParseError) as caught:
        parse_document(data=data, filename="a.docx", limits=limits or ParseLimits())
    return caught.value


def rewrite(data: bytes, name: str, change) -> bytes:
    """The archive with one part changed by `change(bytes)`, or added if it is not there."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            if entry.filename != name:
                new.writestr(entry, old.read(entry))
        new.writestr(name, change(old.read(name) if name in old.namelist() else b""))
    return target.getvalue()


def simple() -> bytes:
    document = docx.Document()
    document.add_paragraph("Some words.")
    return save(document)


def test_document_order_with_headings_lists_tables_and_code():
    document = docx.Document()
    document.add_heading("Firewall standard", level=0)
    document.add_heading("Rules", level=1)
    document.add_paragraph("Every rule has an owner.")
    document.add_paragraph("first", style="List Bullet")
    document.add_paragraph("inner", style="List Bullet 2")
    table = document.add_table(rows=2, cols=2)
    for cell, text in zip(
        [*table.rows[0].cells, *table.rows[1].cells], ("Zone", "Use", "dmz", "web\nmail"), strict=True
    ):
        cell.text = text
    document.add_heading("Steps", level=2)
    for step in ("open", "check"):
        document.add_paragraph(step, style="List Number")
    for line in ("show rules", "", "commit"):
        document.add_paragraph().add_run(line).font.name = "Courier New"
    document.add_paragraph("Done.")
    parsed = parse_document(data=save(document), filename="fw.docx")
    assert parsed.title == "Firewall standard"
    assert [(heading.level, heading.title) for heading in parsed.headings] == [
        (1, "Firewall standard"),
        (1, "Rules"),
        (2, "Steps"),
    ]
    assert blocks_of(parsed) == [
        ("heading", "Firewall standard"),
        ("heading", "Rules"),
        ("paragraph", "Every rule has an owner."),
        ("list", "- first\n  - inner"),
        ("table", "| Zone | Use |\n| dmz | web mail |"),
        ("heading", "Steps"),
        ("list", "1. open\n2. check"),
        ("code", "show rules\n\ncommit"),
        ("paragraph", "Done."),
    ]


def test_insertions_and_content_controls_are_read_and_deletions_are_not():
    document = docx.Document()
    paragraph = document.add_paragraph("kept ")
    for tag, text_tag, text in (("w:ins", "w:t", "inserted"), ("w:del", "w:delText", "deleted")):
        change, run, node = OxmlElement(tag), OxmlElement("w:r"), OxmlElement(text_tag)
        node.text = text
        run.append(node)
        change.append(run)
        paragraph._p.append(change)
    control, content = OxmlElement("w:sdt"), OxmlElement("w:sdtContent")
    inner = document.add_paragraph("in a control")._p
    inner.addprevious(control)
    content.append(inner)
    control.append(content)
    assert parse_document(data=save(document), filename="a.docx").text == "kept inserted\n\nin a control"


def test_a_stated_title_wins_and_contents_tables_are_left_out():
    document = docx.Document()
    document.core_properties.title = "Stated"
    document.styles.add_style("TOC 1", 1)
    document.add_paragraph("Rules ........ 4", style="TOC 1")
    document.add_heading("Rules", level=1)
    document.add_paragraph("Words.")
    parsed = parse_document(data=save(document), filename="a.docx")
    assert parsed.title == "Stated"
    assert parsed.text == "Rules\n\nWords."


def test_a_document_without_text_is_refused():
    assert refuse(save(docx.Document())).code == "no_text"


def test_a_bomb_is_refused_by_its_directory():
    bomb = rewrite(simple(), "word/media/bomb.bin", lambda _: bytes(30 * 2**20))
    assert len(bomb) < 200_000
    assert refuse(bomb).code == "too_large"
    assert refuse(simple(), ParseLimits(max_unpacked_bytes=1000)).code == "too_large"


def test_an_understated_size_in_the_directory_does_not_unpack_more():
    data = rewrite(simple(), "word/document.xml", lambda part: part + b"<!--" + bytes(2**20) + b"-->")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        size = archive.getinfo("word/document.xml").file_size
    lying = data.replace(size.to_bytes(4, "little"), (500).to_bytes(4, "little"))
    assert lying != data
    assert refuse(lying).code == "damaged"


def test_too_many_entries_are_refused():
    error = refuse(simple(), ParseLimits(max_entries=3))
    assert error.code == "too_large"
    assert "parts" in str(error)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_document_type_is_refused_so_that_entities_cannot_be(encoding):
    evil = '<!DOCTYPE w:document [<!ENTITY x SYSTEM "file:///etc/hostname">]>'

    def insert(part: bytes) -> bytes:
        text = part.decode().replace("<w:document", evil + "<w:document", 1).replace("Some words.", "&x;")
        return text.replace("UTF-8", encoding.upper(), 1).encode(encoding)

    error = refuse(rewrite(simple(), "word/document.xml", insert))
    assert error.code == "damaged"
    assert "document type" in str(error)


def test_damaged_archives_are_refused():
    data = simple()
    assert refuse(data[: len(data) // 2]).code == "damaged"
    assert refuse(rewrite(data, "word/document.xml", lambda part: part[: len(part) // 2])).code == "damaged"
    assert refuse(rewrite(data, "[Content_Types].xml", lambda _: b"<no")).code == "damaged"


def test_another_kind_of_archive_is_refused():
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("notes.txt", "hello")
    assert refuse(target.getvalue()).code == "wrong_type"


def test_a_merged_cell_and_a_table_in_a_cell():
    document = docx.Document()
    table = document.add_table(rows=2, cols=2)
    table.cell(0, 0).merge(table.cell(0, 1)).text = "wide"
    table.cell(1, 0).text = "left"
    inner = table.cell(1, 1).add_table(rows=1, cols=1)
    inner.cell(0, 0).text = "nested"
    assert qn("w:tbl") == inner._tbl.tag
    assert parse_document(data=save(document), filename="a.docx").text == "| wide |\n| left | nested |"


def test_a_cell_merged_over_rows_says_its_text_in_each():
    document = docx.Document()
    table = document.add_table(rows=5, cols=3)
    rows = [
        ["Site", "Port", "Peer"],
        ["HAM", "xe-0", "FRA"],
        ["", "xe-1", "MUC"],
        ["", "xe-2", "BER"],
        ["", "xe-3", ""],
    ]
    for row, texts in enumerate(rows):
        for column, text in enumerate(texts):
            table.cell(row, column).text = text
    table.cell(1, 0).merge(table.cell(3, 0))
    assert parse_document(data=save(document), filename="a.docx").text == (
        "| Site | Port | Peer |\n| HAM | xe-0 | FRA |\n| HAM | xe-1 | MUC |\n| HAM | xe-2 | BER |\n|  | xe-3 |"
    )
