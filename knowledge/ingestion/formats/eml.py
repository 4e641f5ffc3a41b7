"""E-mail messages (.eml): who, when, about what, and the text. Attachments are named, not read."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from typing import cast

from knowledge.ingestion.formats.base import (
    HEADING,
    LIST,
    PARAGRAPH,
    DocumentBuilder,
    ParsedDocument,
    ParseError,
    ParseLimits,
    clean_text,
    list_lines,
    make_title,
    shorten_title,
)
from knowledge.ingestion.formats.html import write_html
from knowledge.ingestion.formats.table import clean_cell
from knowledge.ingestion.formats.text import classify_block, decode_text, find_paragraphs

_MAX_NESTED = 5
_MAX_ATTACHMENTS = 100
_HEADERS = ("From", "To", "Cc", "Date")
_HEADER_CHARACTERS = 500


def parse_eml(data: bytes, *, filename: str, media_type: str, limits: ParseLimits) -> ParsedDocument:
    """The headers people look at, the texts (or, without one, the HTML), the names of attachments, and messages
    that were forwarded whole, each as a section. The title is the subject.

    Raises ParseError wrong_type for what has no headers, and no_text.
    """
    message = message_from_bytes(data, policy=policy.default)
    if not message.keys() or not any(
        name in message for name in ("From", "Subject", "Date", "Received", "To")
    ):
        raise ParseError(
            "wrong_type",
            f"{filename} is not an e-mail message: upload it under the ending of its real format.",
        )
    builder = DocumentBuilder(filename=filename, limits=limits)
    writer = _Writer(builder, filename=filename, limits=limits)
    writer.write(message, depth=0)
    if not writer.has_text:
        raise ParseError("no_text", f"{filename} holds no text: upload what is attached to it instead.")
    return builder.build(title=_read_subject(message) or make_title(filename), media_type=media_type)


def _read_header(message: EmailMessage, name: str) -> str:
    try:
        text = str(message.get(name, ""))
    except Exception:  # the parser of headers raises nearly anything for malformed ones
        return ""
    text = clean_cell(clean_text(text))
    return text if len(text) <= _HEADER_CHARACTERS else text[:_HEADER_CHARACTERS].rstrip() + " …"


def _read_subject(message: EmailMessage) -> str:
    return shorten_title(_read_header(message, "Subject"))


class _Writer:
    def __init__(self, builder: DocumentBuilder, *, filename: str, limits: ParseLimits) -> None:
        self._builder, self._filename, self._limits = builder, filename, limits
        self.has_text = False

    def write(self, message: EmailMessage, *, depth: int) -> None:
        subject = _read_subject(message)
        self._builder.add(subject or "(no subject)", HEADING, level=depth + 1)
        lines = [f"{name}: {value}" for name in _HEADERS if (value := self._read(message, name))]
        self._builder.add("\n".join(lines), PARAGRAPH)
        shown, attached = _list_parts(message)
        for part in shown:
            self._write_body(part)
        nested = [part for part in attached if part.get_content_type() == "message/rfc822"]
        names = [f"- {_read_name(part)}" for part in attached if part not in nested]
        if names:
            self._builder.add("Attachments:\n" + "\n".join(names[:_MAX_ATTACHMENTS]), LIST)
        for part in nested[:_MAX_ATTACHMENTS]:
            inner = part.get_payload(0) if isinstance(part.get_payload(), list) else None
            if isinstance(inner, EmailMessage) and depth < _MAX_NESTED:
                self.write(inner, depth=depth + 1)

    def _read(self, message: EmailMessage, name: str) -> str:
        value = _read_header(message, name)
        if name != "Date" or not value:
            return value
        try:
            return parsedate_to_datetime(value).isoformat(" ", "minutes")
        except (ValueError, IndexError, TypeError):
            return value

    def _write_body(self, body: EmailMessage) -> None:
        raw = _read_payload(body)
        if not raw.strip():
            return
        text = _decode(raw, charset=body.get_content_charset(), filename=self._filename, limits=self._limits)
        if body.get_content_type() == "text/html":
            before = self._builder.length
            write_html(self._builder, text)
            self.has_text = self.has_text or self._builder.length > before
            return
        for run in find_paragraphs(text, list_lines(text)):
            paragraph = text[run[0][0] : run[-1][1]]
            self._builder.add(paragraph, classify_block(paragraph))
            self.has_text = True


def _list_parts(
    part: EmailMessage, *, is_first: bool = True
) -> tuple[list[EmailMessage], list[EmailMessage]]:
    """The texts that a mail program shows one below the other, and what is attached. Pictures inside a text are neither."""
    kind, subtype = part.get_content_maintype(), part.get_content_subtype()
    if part.is_attachment() or kind == "message":
        return [], [part]
    if kind != "multipart":
        is_text = kind == "text" and subtype in ("plain", "html")
        is_named = not is_first and bool(_read_filename(part))
        return ([part], []) if is_text and not is_named else ([], [part])
    payload = part.get_payload()
    parts = cast(list[EmailMessage], payload) if isinstance(payload, list) else []
    if subtype == "related" and parts:
        start = part.get_param("start")
        root = next((each for each in parts if start and each["content-id"] == start), parts[0])
        shown, attached = _list_parts(root, is_first=is_first)
        return shown, attached + [each for each in parts if each is not root and "content-id" not in each]
    lists = []
    for each in parts:
        lists.append(_list_parts(each, is_first=is_first))
        is_first = is_first and (subtype == "alternative" or not lists[-1][0])
    attached = [each for _, more in lists for each in more]
    if subtype == "alternative":
        return _choose_alternative([shown for shown, _ in lists]), attached
    return [each for shown, _ in lists for each in shown], attached


def _choose_alternative(alternatives: list[list[EmailMessage]]) -> list[EmailMessage]:
    """Plain text before HTML, but only where there is some."""
    full = [parts for parts in alternatives if any(_read_payload(part).strip() for part in parts)]
    plain = [parts for parts in full if all(part.get_content_subtype() == "plain" for part in parts)]
    return next(iter(plain + full), [])


def _read_payload(part: EmailMessage) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _decode(raw: bytes, *, charset: str | None, filename: str, limits: ParseLimits) -> str:
    if charset:
        try:
            return clean_text(raw.decode(charset))
        except (LookupError, UnicodeError):
            pass  # the declaration lies: found out as for any other text
    return decode_text(raw, filename=filename, limits=limits)


def _read_filename(part: EmailMessage) -> str:
    try:
        return part.get_filename() or ""
    except Exception:  # as for headers
        return ""


def _read_name(part: EmailMessage) -> str:
    size = len(_read_payload(part))
    label = shorten_title(_read_filename(part) or part.get_content_type(), 120)
    return f"{label} ({max(1, round(size / 1024)):,} KB)" if size else label
