"""JSON and lines of JSON, written so that people can read them.

Lists of records become rows that name their fields; JSON without line ends is laid out; everything else keeps its
text. The layout works on the text itself: numbers keep their digits, and depth costs nothing.
"""

from __future__ import annotations

import json
import re
from itertools import chain
from typing import Any

from knowledge.ingestion.formats.base import (
    TABLE,
    DocumentBuilder,
    ParsedDocument,
    ParseLimits,
    check_characters,
    make_title,
)
from knowledge.ingestion.formats.config import parse_config
from knowledge.ingestion.formats.table import clean_cell
from knowledge.ingestion.formats.text import decode_text

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"|[{}\[\],:]|[^\s{}\[\],:"]++|"', re.DOTALL)
# Lines of files made for people are shorter than this on average.
_LONG_LINE = 200
_MAX_INDENT = 40  # levels; deeper ones stand below each other
_MAX_DEPTH = 6  # of a record's fields within fields
_MAX_FIELDS = 200


def parse_json(data: bytes, *, filename: str, media_type: str, limits: ParseLimits) -> ParsedDocument:
    """A list of records as a row each; other JSON as a configuration, laid out if it came without line ends."""
    text = decode_text(data, filename=filename, limits=limits)
    records = _read_records(text)
    if records is not None:
        return _write_records(records, filename=filename, media_type=media_type, limits=limits)
    if len(text) > _LONG_LINE * (text.count("\n") + 1):
        text = _lay_out(text)
        check_characters(len(text), filename=filename, limits=limits)
    return parse_config(text.encode(), filename=filename, media_type=media_type, limits=limits)


def parse_jsonl(data: bytes, *, filename: str, media_type: str, limits: ParseLimits) -> ParsedDocument:
    """Each line a row that names its fields; a line that is no JSON stays as it is."""
    text = decode_text(data, filename=filename, limits=limits)
    rows = (_read_line(line) for line in text.split("\n") if line.strip())
    return _write_records(rows, filename=filename, media_type=media_type, limits=limits)


def _read_line(line: str) -> Any:
    try:
        return json.loads(line, parse_float=str, parse_int=str)
    except (ValueError, RecursionError):
        return line.strip()


def _read_records(text: str) -> list[dict[str, Any]] | None:
    """The items of a list of flat objects; None for any other JSON."""
    if not text.lstrip().startswith("["):
        return None
    try:
        value = json.loads(text, parse_float=str, parse_int=str)
    except (ValueError, RecursionError):
        return None
    flat = (str, bool, type(None))
    if (
        isinstance(value, list)
        and len(value) > 1
        and all(isinstance(item, dict) and item for item in value)
        and all(
            isinstance(field, flat)
            or (isinstance(field, list) and all(isinstance(one, flat) for one in field))
            for field in chain.from_iterable(item.values() for item in value)
        )
    ):
        return value
    return None


def _write_records(records: Any, *, filename: str, media_type: str, limits: ParseLimits) -> ParsedDocument:
    builder = DocumentBuilder(filename=filename, limits=limits)
    for record in records:
        fields = [f"{name}: {value}" if name else value for name, value in _flatten(record)]
        builder.add(
            "; ".join(fields[:_MAX_FIELDS]) + ("; …" if len(fields) > _MAX_FIELDS else ""),
            TABLE,
            separator="\n",
        )
    return builder.build(title=make_title(filename), media_type=media_type)


def _flatten(record: Any, name: str = "", depth: int = 0) -> list[tuple[str, str]]:
    """("interface.mtu", "9216") for each value that is not empty; lists of plain values are one value."""
    if isinstance(record, dict) and depth < _MAX_DEPTH:
        inner = ((f"{name}.{key}" if name else clean_cell(key), value) for key, value in record.items())
    elif (
        isinstance(record, list)
        and depth < _MAX_DEPTH
        and any(isinstance(one, (dict, list)) for one in record)
    ):
        inner = ((f"{name}[{number}]", value) for number, value in enumerate(record, 1))
    else:
        text = _write_value(record)
        return [(name, text)] if text else []
    return [pair for key, value in inner for pair in _flatten(value, key, depth + 1)]


def _write_value(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list) and not any(isinstance(one, (dict, list)) for one in value):
        return ", ".join(filter(None, map(_write_value, value)))
    if isinstance(value, (dict, list)):
        return "…"
    return clean_cell(str(value))


def _lay_out(text: str) -> str:
    """JSON indented by two blanks a level. A list or object without others inside it and short stays one line."""
    marks = _TOKEN.findall(text)
    parts: list[str] = []
    depth = index = 0
    while index < len(marks):
        mark = marks[index]
        if mark in "{[":
            end = _find_short_end(marks, index)
            if end:
                parts.append(_join_short(marks[index : end + 1]))
                index = end
            else:
                depth += 1
                parts.append(mark + _new_line(depth))
        elif mark in "}]":
            depth = max(0, depth - 1)
            parts.append(_new_line(depth) + mark)
        elif mark == ",":
            parts.append("," + _new_line(depth))
        else:
            parts.append(": " if mark == ":" else _read_string(mark))
        index += 1
    return "".join(parts)


def _new_line(depth: int) -> str:
    return "\n" + "  " * min(depth, _MAX_INDENT)


def _find_short_end(marks: list[str], start: int) -> int:
    """Where a plain list or object of at most a line ends; 0 for others."""
    size = 0
    for index in range(start + 1, min(start + 40, len(marks))):
        mark = marks[index]
        if mark in "{[":
            return 0
        if mark in "}]":
            return index
        size += len(mark) + 1
        if size > 100:
            return 0
    return 0


def _join_short(marks: list[str]) -> str:
    spaced = {",": ", ", ":": ": "}
    return "".join(spaced.get(mark, _read_string(mark)) for mark in marks)


def _read_string(mark: str) -> str:
    r"""\u00fc as ü; other escapes stay."""
    if "\\u" not in mark:
        return mark
    try:
        return json.dumps(json.loads(mark), ensure_ascii=False)
    except ValueError:
        return mark
