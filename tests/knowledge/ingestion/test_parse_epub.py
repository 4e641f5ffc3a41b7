"""Books, written by hand."""

import io
import zipfile

import pytest

from knowledge.ingestion.parse import ParseError, ParseLimits, parse_document

CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
)


def make_epub(
    chapters: dict[str, str], *, order: list[str] | None = None, extra: dict[str, str] | None = None
) -> bytes:
    names = list(chapters)
    items = "".join(
        f'<item id="c{n}" href="{name.replace(" ", "%20")}" media-type="application/xhtml+xml"/>'
        for n, name in enumerate(names)
    )
    spine = "".join(f'<itemref idref="c{names.index(name)}"/>' for name in order or names)
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
        f"<dc:title>BGP in practice</dc:title></metadata><manifest>{items}</manifest><spine>{spine}</spine></package>"
    )
    parts = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": CONTAINER,
        "OEBPS/book.opf": package,
    }
    parts |= {f"OEBPS/{name}": text for name, text in chapters.items()} | (extra or {})
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
    return target.getvalue()


def refuse(data: bytes, **limits) -> ParseError:
    with pytest.raises(ParseError) as caught:
        parse_document(data=data, filename="a.epub", limits=ParseLimits(**limits))
    return caught.value


def test_chapters_come_in_the_order_of_reading_with_their_headings():
    data = make_epub(
        {
            "two.xhtml": "<html><head><title>Second</title></head><body><p>no heading</p></body></html>",
            "one 1.xhtml": "<html><head><title/></head><body><h1>Intro</h1><p>Hello <b/>there</p></body></html>",
            "cover.xhtml": "<html><body><img src='x.png'/></body></html>",
        },
        order=["cover.xhtml", "one 1.xhtml", "two.xhtml"],
    )
    parsed = parse_document(data=data, filename="book.epub")
    assert parsed.title == "BGP in practice"
    assert parsed.text == "Intro\n\nHello there\n\nSecond\n\nno heading"
    assert [(heading.level, heading.title) for heading in parsed.headings] == [(1, "Intro"), (1, "Second")]


def test_copy_protection_is_named_and_obfuscated_fonts_are_none():
    def encrypt(method: str) -> bytes:
        xml = f'<encryption><EncryptedData><EncryptionMethod Algorithm="{method}"/></EncryptedData></encryption>'
        return make_epub({"a.xhtml": "<p>words</p>"}, extra={"META-INF/encryption.xml": xml})

    assert refuse(encrypt("http://www.w3.org/2001/04/xmlenc#aes128-cbc")).code == "encrypted"
    assert (
        parse_document(data=encrypt("http://www.idpf.org/2008/embedding"), filename="a.epub").text == "words"
    )


def test_books_without_text_or_with_too_many_chapters_are_refused():
    assert refuse(make_epub({"a.xhtml": "<img/>"})).code == "no_text"
    assert refuse(make_epub({f"{n}.xhtml": "<p>a</p>" for n in range(4)}), max_pages=3).code == "too_large"
