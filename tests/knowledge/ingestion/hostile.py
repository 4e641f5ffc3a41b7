"""Files that were made to harm whoever opens them, built here and nowhere stored."""

import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from email.message import EmailMessage

import docx
import openpyxl
import pptx

from tests.knowledge.ingestion.test_parse_epub import make_epub

MAIN_PART = {
    "docx": "word/document.xml",
    "pptx": "ppt/slides/slide1.xml",
    "xlsx": "xl/worksheets/sheet1.xml",
    "epub": "OEBPS/a.xhtml",
}
PACKAGE_PART = MAIN_PART | {"epub": "OEBPS/book.opf"}


def make_honest(kind: str, words: str = "Some words about routers.") -> bytes:
    """A small file of the kind whose text holds the words."""
    target = io.BytesIO()
    if kind == "docx":
        document = docx.Document()
        document.add_paragraph(words)
        document.save(target)
    elif kind == "pptx":
        deck = pptx.Presentation()
        slide = deck.slides.add_slide(deck.slide_layouts[1])
        slide.shapes.title.text = "Title"
        slide.placeholders[1].text = words
        deck.save(target)
    elif kind == "xlsx":
        workbook = openpyxl.Workbook()
        workbook.active.append([words])
        workbook.save(target)
    elif kind == "epub":
        return make_epub({"a.xhtml": f"<p>{words}</p>"})
    elif kind == "eml":
        message = EmailMessage()
        message["Subject"] = "Title"
        message.set_content(words)
        return bytes(message)
    elif kind == "ipynb":
        return json.dumps({"cells": [{"cell_type": "markdown", "source": words}]}).encode()
    elif kind == "pdf":
        return make_pdf([f"BT /F1 12 Tf 50 700 Td ({words}) Tj ET"])
    elif kind == "json":
        return json.dumps({"text": words}).encode()
    elif kind == "html":
        return f"<p>{words}</p>".encode()
    else:
        return words.encode()
    return target.getvalue()


def change_part(data: bytes, name: str, change: Callable[[bytes], bytes]) -> bytes:
    """The archive with one part changed, or added if it is not there."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            if entry.filename != name:
                new.writestr(entry, old.read(entry))
        new.writestr(name, change(old.read(name) if name in old.namelist() else b""))
    return target.getvalue()


def declare(xml: bytes, declarations: str, entity: str) -> bytes:
    """The part with a document type before its root element, and a reference to an entity inside the root."""
    body = xml[xml.index(b"?>") + 2 :] if xml.startswith(b"<?xml") else xml
    end = body.rindex(b"</")
    return b"<!DOCTYPE r [" + declarations.encode() + b"]>" + body[:end] + f"&{entity};".encode() + body[end:]


def laugh(levels: int = 9) -> str:
    """Entities that grow tenfold a level."""
    rest = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, levels))
    return '<!ENTITY l0 "ha">' + rest


def make_pdf(contents: list[str], *, count: int | None = None, kids: str = "", picture: str = "") -> bytes:
    """A PDF with a page for each content stream. `count` and `kids` replace what the page tree says."""
    pages = len(contents)
    objects = {
        1: "<< /Type /Catalog /Pages 2 0 R >>",
        2: f"<< /Type /Pages /Count {pages if count is None else count} /Kids "
        f"[{kids or ' '.join(f'{10 + n} 0 R' for n in range(pages))}] >>",
        3: "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    }
    if picture:
        objects[4] = picture
    for number, content in enumerate(contents):
        objects[10 + number] = (
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << /Font << /F1 3 0 R >> "
            f"/XObject << /X 4 0 R >> >> /Contents {10 + pages + number} 0 R >>"
        )
        objects[10 + pages + number] = f"<< /Length {len(content)} >>\nstream\n{content}\nendstream"
    out = b"%PDF-1.7\n"
    places = {}
    for number, body in objects.items():
        places[number] = len(out)
        out += f"{number} 0 obj\n{body}\nendobj\n".encode("latin-1")
    table = len(out)
    last = max(objects) + 1
    out += f"xref\n0 {last}\n0000000000 65535 f \n".encode()
    out += b"".join(
        f"{places[n]:010} 00000 n \n".encode() if n in places else b"0000000000 65535 f \n"
        for n in range(1, last)
    )
    return out + f"trailer\n<< /Size {last} /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n".encode()


def make_scan(pages: int = 2) -> bytes:
    """Pages that are pictures."""
    picture = "<< /Type /XObject /Subtype /Image /Width 1 /Height 1 /ColorSpace /DeviceGray "
    picture += "/BitsPerComponent 8 /Length 1 >>\nstream\n\x80\nendstream"
    return make_pdf(["q 500 0 0 700 50 50 cm /X Do Q"] * pages, picture=picture)


def list_bombs() -> Iterator[tuple[str, bytes, str]]:
    """(name, bytes, code) of archives and XML that unpack without end, or point elsewhere."""
    for kind in ("docx", "pptx", "xlsx", "epub"):
        honest = make_honest(kind)
        yield f"ratio.{kind}", change_part(honest, "media/a.bin", lambda _: bytes(12 * 2**20)), "too_large"
        yield (
            f"laughs.{kind}",
            change_part(honest, PACKAGE_PART[kind], lambda xml: declare(xml, laugh(), "l8")),
            "damaged",
        )
        yield (
            f"file.{kind}",
            change_part(
                honest,
                PACKAGE_PART[kind],
                lambda xml: declare(xml, '<!ENTITY x SYSTEM "file:///etc/passwd">', "x"),
            ),
            "damaged",
        )
        yield (
            f"http.{kind}",
            change_part(
                honest,
                PACKAGE_PART[kind],
                lambda xml: declare(xml, '<!ENTITY x SYSTEM "http://127.0.0.1:9/">', "x"),
            ),
            "damaged",
        )
        yield (
            f"utf16.{kind}",
            change_part(
                honest,
                "docProps/x.xml",
                lambda _: '<?xml version="1.0"?><!DOCTYPE a []><a/>'.encode("utf-16"),
            ),
            "damaged",
        )
        yield (
            f"utf7.{kind}",
            change_part(
                honest,
                "docProps/x.xml",
                lambda _: b'<?xml version="1.0" encoding="UTF-7"?>+ADwAIQ-DOCTYPE a+AD4APA-a/+AD4-',
            ),
            "damaged",
        )
        yield f"traversal.{kind}", change_part(honest, "../../etc/cron.d/x", lambda _: b"x"), "damaged"
        yield f"absolute.{kind}", change_part(honest, "/etc/x", lambda _: b"x"), "damaged"
        yield f"symlink.{kind}", add_symlink(honest), "damaged"
        yield f"entries.{kind}", add_entries(honest, 10_100), "too_large"
        yield f"locked.{kind}", set_encrypted(honest), "encrypted"
        yield (
            f"ole.{kind}",
            (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512) + "EncryptedPackage".encode("utf-16-le")),
            "encrypted",
        )
        yield f"lying.{kind}", lie_about_size(honest, MAIN_PART[kind]), "damaged"


def add_symlink(data: bytes) -> bytes:
    target = io.BytesIO(data)
    with zipfile.ZipFile(target, "a") as archive:
        link = zipfile.ZipInfo("media/link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    return target.getvalue()


def add_entries(data: bytes, count: int) -> bytes:
    target = io.BytesIO(data)
    with zipfile.ZipFile(target, "a") as archive:
        for number in range(count):
            archive.writestr(f"m/{number}", b"")
    return target.getvalue()


def set_encrypted(data: bytes) -> bytes:
    """The flag of encryption on every entry of the directory."""
    spoiled = bytearray(data)
    position = spoiled.find(b"PK\x01\x02")
    while position >= 0:
        spoiled[position + 8] |= 1
        position = spoiled.find(b"PK\x01\x02", position + 1)
    return bytes(spoiled)


def lie_about_size(data: bytes, name: str) -> bytes:
    """A part that unpacks to 2 MB, of which the directory says 100 bytes."""
    bomb = bytearray(change_part(data, name, lambda _: b"<a>" + b" " * (2 * 2**20) + b"</a>"))
    position = bomb.find(b"PK\x01\x02")
    while position >= 0:
        length = int.from_bytes(bomb[position + 28 : position + 30], "little")
        if bomb[position + 46 : position + 46 + length] == name.encode():
            bomb[position + 24 : position + 28] = (100).to_bytes(4, "little")
        position = bomb.find(b"PK\x01\x02", position + 1)
    return bytes(bomb)


def make_nested_archive(depth: int = 6) -> bytes:
    """Archives inside archives, each of them ten times."""
    inner = zlib.compress(bytes(1 << 20))
    for _ in range(depth):
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for number in range(10):
                archive.writestr(f"{number}.zip", inner)
        inner = target.getvalue()
    return inner
