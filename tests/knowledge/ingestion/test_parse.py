"""What holds for every format: recognising it, refusing what it is not, limits, decoding, titles."""

import codecs

import pytest

from knowledge.ingestion.formats.base import make_title
from knowledge.ingestion.parse import (
    SUPPORTED_EXTENSIONS,
    ParseError,
    ParseLimits,
    media_type_of,
    parse_document,
)


def refuse(data: bytes, filename: str, limits: ParseLimits | None = None) -> ParseError:
    with pytest.raises(ParseError) as caught:
        parse_document(data=data, filename=filename, limits=limits or ParseLimits())
    assert caught.value.permanent is True
    assert str(caught.value).endswith(".")
    assert filename in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("filename", "media_type"),
    [
        ("a.txt", "text/plain"),
        ("A.MD", "text/markdown"),
        ("a.rst", "text/x-rst"),
        ("a.htm", "text/html"),
        ("a.csv", "text/csv"),
        ("core.conf", "text/x-config"),
        ("site.yml", "application/yaml"),
        ("tool.py", "text/x-python"),
        ("Dockerfile", "text/x-source"),
        ("Dockerfile.dev", "text/x-source"),
        ("Makefile", "text/x-source"),
        ("README", "text/plain"),
        (".env", "text/x-config"),
    ],
)
def test_media_type_is_found_by_name(filename, media_type):
    assert media_type_of(filename=filename, data=b"some words") == media_type


@pytest.mark.parametrize("filename", ["a.exe", "a.doc", "noending", "archive.tar.gz", ""])
def test_unsupported_endings_are_refused_with_the_list_of_supported_ones(filename):
    error = refuse(b"some words", filename)
    assert error.code == "unsupported_type"
    assert ".docx" in str(error)
    assert ".conf" in str(error)


@pytest.mark.parametrize(
    ("filename", "data", "words"),
    [
        ("report.pdf", b"<html><p>not a pdf</p></html>", "not a PDF"),
        ("report.docx", b"just words", "not a Word document"),
        ("report.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "old Word document"),
        ("notes.txt", b"%PDF-1.7 ...", "is a PDF"),
        ("notes.md", b"PK\x03\x04 ...", "ZIP"),
        ("notes.csv", b"\x89PNG\r\n\x1a\n", "PNG"),
        ("notes.txt", bytes(range(256)) * 40, "binary"),
        ("notes.txt", b"\x00\x01\x02\x03\x04\x05\x06\x07" * 40, "binary"),
    ],
)
def test_content_that_contradicts_the_ending_is_refused(filename, data, words):
    error = refuse(data, filename)
    assert error.code == "wrong_type"
    assert words in str(error)


def test_an_encrypted_word_document_is_named_as_such():
    data = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512) + "EncryptedPackage".encode("utf-16-le")
    assert refuse(data, "a.docx").code == "encrypted"


@pytest.mark.parametrize("data", [b"", b" \n\t\r\n ", codecs.BOM_UTF8, b"\0\0\0 \n"])
@pytest.mark.parametrize("filename", ["a.txt", "a.md", "a.rst", "a.csv", "a.conf", "a.py"])
def test_empty_files_are_refused(data, filename):
    assert refuse(data, filename).code in ("empty", "wrong_type" if b"\0" in data else "empty")


def test_files_above_the_size_limit_are_refused_and_those_at_it_are_not():
    limits = ParseLimits(max_bytes=10)
    assert parse_document(data=b"0123456789", filename="a.txt", limits=limits).text == "0123456789"
    error = refuse(b"0123456789x", "a.txt", limits)
    assert error.code == "too_large"


def test_the_default_size_limit_is_fifty_megabytes():
    assert refuse(bytes(51 * 2**20), "a.txt").code == "too_large"


@pytest.mark.parametrize("filename", ["a.txt", "a.md", "a.csv", "a.html", "a.conf"])
def test_texts_above_the_character_limit_are_refused(filename):
    error = refuse(b"<p>words, words\n" * 20, filename, ParseLimits(max_characters=100))
    assert error.code == "too_large"
    assert "100 characters" in str(error)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"]
)
def test_encodings_are_recognised(encoding):
    words = "Die Prüfung der Geräte für die Außenstelle läuft über Nürnberg und Zürich.\n" * 4
    assert parse_document(data=words.encode(encoding), filename="a.txt").text == words


def test_cyrillic_in_a_legacy_encoding_is_recognised():
    words = (
        "Маршрутизатор потерял соседа по протоколу, проверьте состояние интерфейса и журнал событий.\n" * 4
    )
    assert parse_document(data=words.encode("cp1251"), filename="a.txt").text == words


def test_a_broken_byte_in_utf_8_does_not_turn_the_rest_into_latin_1():
    data = ("Prüfung der Geräte über Nürnberg. " * 5).encode() + b"\xff end"
    text = parse_document(data=data, filename="a.txt").text
    assert "Prüfung der Geräte über Nürnberg" in text
    assert "�" in text


def test_text_is_normalised():
    data = "Zu\u0308rich\r\nfirst\rsecond\0third\u2028last \x1b[31mred\x1b[0m\x07".encode()
    text = parse_document(data=data, filename="a.txt").text
    assert text == "Zürich\nfirst\nsecondthird\nlast red"


@pytest.mark.parametrize(
    ("filename", "title"),
    [
        ("bgp-session-down.txt", "BGP session down"),
        ("vlan_standard.md", "VLAN standard"),
        ("ipsec-to-azure.log", "IPsec to azure"),
        ("Quarterly Report.txt", "Quarterly Report"),
        ("x.txt", "X"),
        ("---.txt", "---.txt"),
    ],
)
def test_titles_fall_back_to_the_file_name_in_words(filename, title):
    assert make_title(filename) == title


def test_folders_in_the_name_are_ignored():
    parsed = parse_document(data=b"some words.", filename="../../etc/link-flap.txt")
    assert parsed.title == "Link flap"


def test_endings_are_lower_case_with_their_dot():
    assert {".txt", ".md", ".rst", ".html", ".pdf", ".docx", ".csv"} <= SUPPORTED_EXTENSIONS
    assert all(ending.startswith(".") and ending == ending.lower() for ending in SUPPORTED_EXTENSIONS)
