"""Cutting technical text where a reader would: sentences, list items, table rows, code and configuration.

Everything is told as offsets into the text that was given, so that what is quoted can be found again.
"""

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["sentence", "item", "row", "code", "heading"]

# A full stop after one of these does not end a sentence.
_ABBREVIATIONS = frozenset(
    re.findall(
        r"\S+",
        "e.g i.e etc vs cf resp approx incl excl max min no nos fig sec ch vol ver rev dept est inc ltd co "
        "corp st mr mrs ms dr prof al ca bzw z.b d.h u.a usw nr tel ext "
        "jan feb mar apr jun jul aug sep sept oct nov dec",
    )
)
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]*_`]*(?=\s|$)|[。！？]")
# A capital or a digit under whatever marks, quoted code, or a name in small letters (ge-0/0/1).
_SENTENCE_START = re.compile(
    r"[\"'“‘(\[*_#]*(?:[A-Z0-9<$/`]|[^\W\d_a-zß-ÿ]|[a-z][\w-]*\d)",
)
_WORD_BEFORE = re.compile(r"[\w.]*$")
_ITEM = re.compile(r"[ \t]*(?:[-*+•‣–]|\(?\d{1,3}[.)]|\(?[a-z][.)])[ \t]+\S")
# A table's row written out: "Name: leaf-1; Site: fra1", or its values alone.
_RECORD = re.compile(r"[^:;]{1,60}: [^;]*(?:; [^:;]{1,60}: [^;]*)+$|[^;]+(?:; [^;]+){2,}(?<![.!?:])$")
_HEADING = re.compile(r"#{1,6}[ \t]+\S|(?:=+|-{3,}|~{3,}|\^{3,})[ \t]*$")
_ROW = re.compile(r"[ \t]*\|.*\|[ \t]*$")
_FENCE = re.compile(r"[ \t]*(```+|~~~+)")
_CONFIG_WORDS = (
    "set no ip ipv6 interface router vlan neighbor hostname description switchport network "
    "address-family permit deny access-list route-map line aaa logging ntp service username "
    "policy-map class-map class match crypto exit"
)
_CONFIG_LINE = re.compile(
    rf"\s*(?:[!#{{}}]|//|(?:{_CONFIG_WORDS.replace(' ', '|')}) |end$|snmp-server "
    r"|[\w.-]+\s*=\s*\S|[\w.-]+:\s*\S*$|[\w./-]+(?: [\w./:\"-]+)*\s*[;{]$)"
)
_SPOKEN = re.compile(r"[a-zà-ÿ]{2,}[.!?][\"')\]*_`]*\s*$|\b(?:the|is|are|was|were|must|should|and|of|to)\b")
STANZA_LINES = 14
STANZA_DEPTH = 8


@dataclass(frozen=True)
class Unit:
    """A piece that is quoted whole: `text[start:end]`, without surrounding white space.

    `paragraph` numbers the paragraph or list or table it belongs to; `lead` says that it announces what
    follows (it ends with a colon, or is a table's head). `above` holds the opening lines of the configuration
    blocks around it.
    """

    start: int
    end: int
    kind: Kind
    paragraph: int
    lead: bool = False
    above: tuple[str, ...] = ()


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Splits prose into sentences as `(start, end)`, without surrounding white space.

    Abbreviations, version numbers, addresses and file names keep their full stops; a line break is white
    space.
    """
    spans: list[tuple[int, int]] = []
    start = 0
    for match in _SENTENCE_END.finditer(text):
        end = match.end()
        if end < len(text) and not _ends_sentence(text, match):
            continue
        _append_stripped(spans, text, start, end)
        start = end
    _append_stripped(spans, text, start, len(text))
    return spans


def _ends_sentence(text: str, match: re.Match[str]) -> bool:
    if match.group() in ("。", "！", "？"):
        return True
    rest = text[match.end() :].lstrip()
    if rest and not _SENTENCE_START.match(rest):
        return False
    if match.group()[0] != "." or match.group().startswith(".."):
        return True
    before = _WORD_BEFORE.search(text[max(0, match.start() - 20) : match.start()])
    word = before.group().lower() if before else ""
    if word in _ABBREVIATIONS:
        return False
    # An initial ("J. Smith"), and a numbered item's own stop at the beginning of a line ("1. Do this").
    if len(word) == 1 and word.isalpha():
        return False
    line_start = text.rfind("\n", 0, match.start()) + 1
    return not (word.isdigit() and text[line_start : match.start()].strip() == word)


def _append_stripped(spans: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if start < end:
        spans.append((start, end))


def split_units(text: str) -> list[Unit]:
    """Cuts extracted text (Markdown, plain text, tables, code, device configuration) into units in order."""
    lines = _line_spans(text)
    if _is_configuration(text, lines):
        return _stanzas(text, lines, paragraph=0)
    units: list[Unit] = []
    paragraph = 0
    at = 0
    while at < len(lines):
        start, end = lines[at]
        line = text[start:end]
        if not line.strip():
            at += 1
            continue
        paragraph += 1
        stop = _block_end(text, lines, at)
        block = lines[at:stop]
        if _FENCE.match(line):
            units.append(Unit(start, block[-1][1], "code", paragraph))
        elif _is_heading(text, lines, at):
            units.append(Unit(start, block[-1][1], "heading", paragraph))
        elif all(_RECORD.match(text[s:e]) for s, e in block):
            units.extend(Unit(s, e, "item", paragraph) for s, e in block)
        elif _ROW.match(line):
            units.extend(_rows(text, block, paragraph))
        elif _is_configuration(text, block):
            units.extend(_stanzas(text, block, paragraph=paragraph))
        else:
            units.extend(_prose(text, block, paragraph))
        at = stop
    return units


def _line_spans(text: str) -> list[tuple[int, int]]:
    spans, start = [], 0
    for line in text.splitlines(keepends=True):
        spans.append((start, start + len(line.rstrip("\r\n"))))
        start += len(line)
    return spans


def _block_end(text: str, lines: list[tuple[int, int]], at: int) -> int:
    """The index after the last line of the block that begins at line `at`."""
    first = text[slice(*lines[at])]
    fence = _FENCE.match(first)
    stop = at + 1
    if fence:
        while stop < len(lines):
            stop += 1
            if text[slice(*lines[stop - 1])].strip().startswith(fence.group(1)):
                break
        return stop
    if _is_heading(text, lines, at):
        return at + (1 if first.lstrip().startswith("#") else 2)
    table = bool(_ROW.match(first))
    while stop < len(lines):
        line = text[slice(*lines[stop])]
        if not line.strip() or _FENCE.match(line) or bool(_ROW.match(line)) != table:
            break
        if _is_heading(text, lines, stop):
            break
        stop += 1
    return stop


def _is_heading(text: str, lines: list[tuple[int, int]], at: int) -> bool:
    line = text[slice(*lines[at])]
    if line.startswith("#"):
        return bool(_HEADING.match(line))
    if at + 1 < len(lines) and len(line) < 100 and not _ITEM.match(line) and not _ROW.match(line):
        under = text[slice(*lines[at + 1])]
        # A setext or reStructuredText heading: underlined at least nearly to its own length.
        return (
            len(set(under.strip())) == 1
            and bool(_HEADING.match(under))
            and len(under) + 3 >= len(line.strip())
        )
    return False


def _is_configuration(text: str, lines: list[tuple[int, int]]) -> bool:
    """Whether these lines are device configuration or settings rather than prose."""
    shown = [text[start:end] for start, end in lines if text[start:end].strip()]
    if len(shown) < 2 or any(_ROW.match(s) or _FENCE.match(s) for s in shown):
        return False
    config = sum(1 for s in shown if _CONFIG_LINE.match(s) or (s[:1] in " \t" and not _ITEM.match(s)))
    spoken = sum(
        1 for s in shown if _SPOKEN.search(s) and not s.lstrip().startswith(("!", "#", "description"))
    )
    items = sum(1 for s in shown if _ITEM.match(s) or s.startswith("# "))
    return config >= 0.6 * len(shown) and spoken <= 0.25 * len(shown) and items <= 0.25 * len(shown)


def _stanzas(text: str, lines: list[tuple[int, int]], *, paragraph: int) -> list[Unit]:
    """A line at the left margin with the indented or bracketed lines that belong to it."""
    units: list[Unit] = []
    stanza: list[tuple[int, int]] = []
    depth = 0
    for start, end in lines:
        line = text[start:end]
        separator = line.strip() in ("", "!", "#")
        opens = line[:1] not in (" ", "\t", "}") and depth == 0
        if stanza and depth == 0 and (separator or opens):
            units.extend(_split_stanza(text, stanza, paragraph=paragraph, above=()))
            stanza = []
        if not separator:
            stanza.append((start, end))
        depth = max(0, depth + line.count("{") - line.count("}"))
    units.extend(_split_stanza(text, stanza, paragraph=paragraph, above=()))
    return units


def _split_stanza(
    text: str, lines: list[tuple[int, int]], *, paragraph: int, above: tuple[str, ...]
) -> list[Unit]:
    """Keeps a stanza whole when a reader can take it in at a glance, and else goes into its own blocks."""
    if not lines:
        return []
    if len(lines) <= STANZA_LINES:
        return [Unit(lines[0][0], lines[-1][1], "code", paragraph, above=above)]
    if len(above) >= STANZA_DEPTH:
        cuts = range(0, len(lines), STANZA_LINES)
        parts = [lines[at : at + STANZA_LINES] for at in cuts]
        return [Unit(part[0][0], part[-1][1], "code", paragraph, above=above) for part in parts]
    openers = [line for line in lines if not _closes(text, line)]
    margin = min(_indent(text, line) for line in openers or lines)
    groups: list[list[tuple[int, int]]] = []
    for line in lines:
        if not groups or (_indent(text, line) <= margin and not _closes(text, line)):
            groups.append([line])
        else:
            groups[-1].append(line)
    if len(groups) == 1:
        inner = lines[1:]
        while inner and _closes(text, inner[-1]) and _indent(text, inner[-1]) <= margin:
            inner.pop()
        here = (*above, text[slice(*lines[0])])
        head = Unit(*lines[0], "code", paragraph, above=above)
        return [head, *_split_stanza(text, inner, paragraph=paragraph, above=here)]
    return [u for group in groups for u in _split_stanza(text, group, paragraph=paragraph, above=above)]


def _closes(text: str, line: tuple[int, int]) -> bool:
    return text[slice(*line)].lstrip().startswith("}")


def _indent(text: str, line: tuple[int, int]) -> int:
    shown = text[slice(*line)]
    return len(shown) - len(shown.lstrip())


def _rows(text: str, lines: list[tuple[int, int]], paragraph: int) -> list[Unit]:
    units = []
    rule = len(lines) > 1 and set(text[slice(*lines[1])].strip()) <= set("|-: +")
    for index, (start, end) in enumerate(lines):
        if rule and index == 0:
            units.append(Unit(start, lines[1][1], "row", paragraph, lead=True))
        elif not (rule and index == 1):
            units.append(Unit(start, end, "row", paragraph))
    return units


def _prose(text: str, lines: list[tuple[int, int]], paragraph: int) -> list[Unit]:
    """Sentences of a paragraph, and list items with their continuation lines."""
    pieces: list[tuple[int, int, bool]] = []
    for start, end in lines:
        item = bool(_ITEM.match(text[start:end]))
        if item or not pieces:
            pieces.append((start, end, item))
        else:
            pieces[-1] = (pieces[-1][0], end, pieces[-1][2])
    units = []
    for start, end, item in pieces:
        stripped: list[tuple[int, int]] = []
        _append_stripped(stripped, text, start, end)
        spans = stripped if item else split_sentences(text[start:end])
        for span_start, span_end in spans:
            begin, stop = (span_start, span_end) if item else (start + span_start, start + span_end)
            lead = text[begin:stop].rstrip("*_ ").endswith(":")
            units.append(Unit(begin, stop, "item" if item else "sentence", paragraph, lead=lead))
    return units


def partition_text(text: str, *, target: int = 240) -> list[tuple[int, int]]:
    """Cuts the whole text into consecutive spans of about `target` characters at the ends of units.

    The spans joined are the text, and none is blank; a blank text has none.
    """
    if not text.strip():
        return []
    spans: list[tuple[int, int]] = []
    begin = 0
    previous: Unit | None = None
    for unit in split_units(text):
        if previous is not None and (
            previous.end - begin >= target
            or (unit.paragraph != previous.paragraph and previous.kind != "heading" and not previous.lead)
            or "code" in (unit.kind, previous.kind)
        ):
            spans.append((begin, unit.start))
            begin = unit.start
        previous = unit
    return [*spans, (begin, len(text))]
