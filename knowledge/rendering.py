"""Answers and documents as HTML that is safe to show.

An answer is Markdown that a model wrote over other people's documents: it becomes HTML without raw HTML, images
or links other than to the web and to mail, and passes an allow-list after that. A document's text is escaped,
never interpreted; only its lines are grouped, so that offsets into the text stay true.
"""

import re
import secrets
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any
from urllib.parse import quote

import nh3
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _
from markdown_it import MarkdownIt
from markdown_it.token import Token

from knowledge.windows import ONE_BLOCK, WHOLE_LINES, Extent, Window

# These stand around a citation until the HTML is clean, with a word that no document can know. They are punctuation
# for Markdown: emphasis that ends right before them still ends there.
OPEN, CLOSE = "\u2045", "\u2046"
_OPEN_IN_LINK, _CLOSE_IN_LINK = quote(OPEN), quote(CLOSE)
# Inside of these a marker would be taken for text or break what it is in: it goes behind them. No alternative is
# tried again from within what it has just failed on, so that a text of backticks or brackets alone takes no longer.
_UNBROKEN = re.compile(
    r"(?s)(?<!`)(`++).+?(?<!`)\1(?!`)|!?\[[^\[\]\n]*+\]\([^)\n]{0,2000}+\)|<[^<>\s]++>|\*{2,}|_{2,}|~{2,}"
)
_WHOLE_BLOCKS = {"fence", "code_block", "table_open", "hr"}

_TAGS = {
    *(["p", "br", "strong", "em", "s", "code", "pre", "ul", "ol", "li", "blockquote", "hr", "a"]),
    *(["h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"]),
}
_ATTRIBUTES = {"a": {"href", "title"}, "ol": {"start"}}
_ALIGNED = {"align-right", "align-center"}
_LINK = re.compile(r"(?i)(?:https?://|mailto:)")


@dataclass(frozen=True)
class CitationLink:
    """Where a citation's number leads, and what it is called for those who do not see the page."""

    href: str
    label: str


@cache
def _markdown() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "linkify": False}).enable(["table", "strikethrough"])
    return parser.disable(["image", "html_block", "html_inline"])


@cache
def _cleaner() -> nh3.Cleaner:
    return nh3.Cleaner(
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        attribute_filter=_keep_attribute,
        allowed_classes={"th": _ALIGNED, "td": _ALIGNED},
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
        strip_comments=True,
    )


def _keep_attribute(tag: str, name: str, value: str) -> str | None:
    # A relative link of a model's making could lead anywhere in our own site.
    return None if name == "href" and not _LINK.match(value) else value


def render_answer(
    text: str, citations: Iterable[Mapping[str, int]] = (), *, links: Mapping[int, CitationLink] | None = None
) -> SafeString:
    """An answer's Markdown as HTML, with a numbered link behind every cited span.

    Args:
        text: the answer.
        citations: ``{source, start, end}``; offsets in characters of ``text``.
        links: by a source's number; citations of other sources are left out.
    """
    links = links or {}
    word, places = secrets.token_hex(8), _places(text, citations, links)
    marked = _insert_markers(text, places, word)
    parser = _markdown()
    tokens = parser.parse(marked)
    for token in tokens:
        _tame(token)
    html = _cleaner().clean(parser.renderer.render(tokens, parser.options, {}))
    html = html.replace("<table>", '<div class="table-scroll" tabindex="0"><table>').replace(
        "</table>", "</table></div>"
    )
    return mark_safe(_place_links(html, places, word, links))  # noqa: S308 (cleaned above)


def text_with_numbers(text: str, citations: Sequence[Mapping[str, int]]) -> str:
    """An answer's Markdown with ``[n]`` behind every cited span, for where there are no links."""
    links = {citation["source"]: CitationLink("", "") for citation in citations}
    word = secrets.token_hex(8)
    marked = _insert_markers(text, _places(text, citations, links), word)
    return re.sub(f"{OPEN}{word}\\.(\\d+){CLOSE}", r"[\1]", marked)


def _tame(token: Token) -> None:
    if token.type in ("heading_open", "heading_close"):  # the page has its own first and second level
        token.tag = f"h{min(int(token.tag[1]) + 2, 6)}"
    elif token.type in ("th_open", "td_open"):
        style = str(token.attrs.pop("style", ""))  # inline styles are forbidden by our own policy
        if align := style.removeprefix("text-align:"):
            token.attrs["class"] = f"align-{align}"


def _place_links(
    html: str, places: Mapping[int, Sequence[int]], word: str, links: Mapping[int, CitationLink]
) -> str:
    """Links for markers, in the text alone; what a tag has swallowed (a title, an address) goes to the end."""
    marker = re.compile(f"(?:{OPEN}|{_OPEN_IN_LINK}){word}\\.(\\d+)(?:{CLOSE}|{_CLOSE_IN_LINK})")
    missing = {n for numbers in places.values() for n in numbers}

    def place(match: re.Match[str]) -> str:
        if match["tag"]:
            return marker.sub("", match["tag"])
        missing.discard(int(match[2]))
        return _link(int(match[2]), links)

    html = re.sub(f'(?P<tag><(?:"[^"]*"|[^">])*>)|{marker.pattern}', place, html)
    return html + (f"<p>{''.join(_link(n, links) for n in sorted(missing))}</p>\n" if missing else "")


def _link(n: int, links: Mapping[int, CitationLink]) -> str:
    link = links.get(n)
    if link is None:
        return ""
    return format_html(
        '<a class="cite" href="{}" data-cite="{}" aria-label="{}">{}</a>', link.href, n, link.label, n
    )


def _places(
    text: str, citations: Iterable[Mapping[str, int]], links: Mapping[int, CitationLink]
) -> dict[int, list[int]]:
    """The sources' numbers by the position that their markers go to."""
    places: dict[int, list[int]] = {}
    move = _mover(text)
    for citation in citations:
        if citation["source"] in links and 0 < citation["end"] <= len(text):
            numbers = places.setdefault(move(citation["end"]), [])
            if citation["source"] not in numbers:
                numbers.append(citation["source"])
    return {position: sorted(numbers) for position, numbers in places.items()}


@dataclass(frozen=True)
class _Whole:
    """A block that no marker may go into, ``text[start:end]``, and what a marker behind it needs before it."""

    start: int
    end: int
    before: str


@lru_cache(maxsize=32)  # asked for twice in a rendering
def _whole_blocks(text: str) -> list[_Whole]:
    lines = [0, *(match.end() for match in re.finditer("\n", text)), len(text) + 1]
    found = []
    for token in _markdown().parse(text):
        if token.type not in _WHOLE_BLOCKS or token.map is None:
            continue
        start = lines[token.map[0]]
        block = text[start : lines[min(token.map[1], len(lines) - 1)] - 1].rstrip()
        indent, before = "", ""
        if token.type == "fence":
            indent = block[: len(block) - len(block.lstrip())]
            before = "" if _is_closed(block, token.markup) else f"\n{indent}{token.markup}"
        found.append(_Whole(start, start + len(block), f"{before}\n\n{indent}"))
    return found


def _is_closed(block: str, markup: str) -> bool:
    last = block.rsplit("\n", 1)[-1].strip()
    return "\n" in block and last.startswith(markup) and not last.strip(markup[0])


def _mover(text: str) -> Callable[[int], int]:
    wholes = _whole_blocks(text)
    unbroken = [match.span() for match in _UNBROKEN.finditer(text)]

    def move(position: int) -> int:
        while position > 1 and text[position - 1].isspace():
            position -= 1
        for whole in wholes:
            if whole.start < position <= whole.end:
                return whole.end
        for start, end in unbroken:
            if start < position < end:
                return end
        return position

    return move


def _insert_markers(text: str, places: Mapping[int, Sequence[int]], word: str) -> str:
    behind = {whole.end: whole.before for whole in _whole_blocks(text)}
    parts, last = [], 0
    for position in sorted(places):
        markers = "".join(f"{OPEN}{word}.{n}{CLOSE}" for n in places[position])
        before = behind.get(position)
        parts.append(text[last:position])
        parts.append(markers if before is None else f"{before}{markers}\n\n")
        last = position
    return "".join(parts) + text[last:]


# Documents

_MONOSPACED = re.compile(r"text/x-(?:config|source|python|log)|application/(?!pdf|vnd)|text/javascript")


@dataclass(frozen=True)
class _Part:
    """A run of the text shown in one way."""

    start: int
    end: int
    kind: str  # a key of _SHOWN


def extent_of(media_type: str) -> Extent:
    """How much of such a document is shown at once."""
    return ONE_BLOCK if _MONOSPACED.match(media_type) else WHOLE_LINES


def render_document(
    text: str,
    *,
    media_type: str,
    window: Window,
    passage: tuple[int, int] | None = None,
    pages: Sequence[int] = (),
    headings: Mapping[str, int] | None = None,
) -> SafeString:
    """A document's extracted text as HTML; its characters are all there, in order, and nothing but them.

    Args:
        text: the whole text.
        passage: start and end of what to mark; the first mark carries the id ``passage``.
        pages: offset of each page's start.
        headings: level (from 1) by title, for formats whose headings are lines like any other.
    """
    parts: list[str] = []
    marked = False
    for part in _split(text, media_type=media_type, window=window, headings=headings or {}):
        for start, end, page in _cut_at_pages(part, pages):
            if page is not None:
                parts.append(
                    format_html(
                        '<div class="page-break" data-label="{}" data-page="{}"></div>', _("Page"), page
                    )
                )
            # What parts the blocks lies between them: inside of one it would show as empty lines.
            shown = text[start:end]
            first = start + len(shown) - len(shown.lstrip("\n"))
            last = max(first, start + len(shown.rstrip()))
            html = _mark(text, first, last, passage, first=not marked)
            marked = marked or "<mark" in html
            if part.kind.startswith("heading"):
                html = _SIGN.sub(r'<span class="doc-sign">\g<0></span>', html)
            block = f'<div class="{_SHOWN[part.kind]}">{html}</div>' if html else ""
            parts.append(f"{text[start:first]}{block}{escape(text[last:end])}")
    return mark_safe("".join(parts))  # noqa: S308 (every part is escaped)


_SHOWN = {
    "prose": "doc-prose",
    "lines": "doc-lines",
    "mono": "doc-mono",
    **{f"heading-{level}": f"doc-heading doc-heading-{level}" for level in range(1, 7)},
}
# The signs of a Markdown heading, also where a mark begins right before them.
_SIGN = re.compile(r"(?:(?<=^)|(?<=>))#{1,6}[ \t]+")


def _mark(text: str, start: int, end: int, passage: tuple[int, int] | None, *, first: bool) -> str:
    if passage is None:
        return escape(text[start:end])
    low, high = max(start, passage[0]), min(end, passage[1])
    if low >= high or not text[low:high].strip():
        return escape(text[start:end])
    identity = ' id="passage" tabindex="-1"' if first else ""
    return f"{escape(text[start:low])}<mark{identity}>{escape(text[low:high])}</mark>{escape(text[high:end])}"


def _cut_at_pages(part: _Part, pages: Sequence[int]) -> Iterable[tuple[int, int, int | None]]:
    """``(start, end, number of the page that begins there)``."""
    cuts = [offset for offset in dict.fromkeys(pages) if part.start <= offset < part.end]
    edges = [*([part.start] if not cuts or cuts[0] != part.start else []), *cuts, part.end]
    for start, end in pairwise(edges):
        yield start, end, bisect_right(pages, start) if start in cuts else None


def _split(text: str, *, media_type: str, window: Window, headings: Mapping[str, int]) -> list[_Part]:
    if _MONOSPACED.match(media_type):
        return [_Part(window.start, window.end, "mono")]
    if media_type == "text/markdown":
        return _split_markdown(text, window)
    parts: list[_Part] = []
    position = window.start
    for line in text[window.start : window.end].splitlines(keepends=True):
        level = headings.get(" ".join(line.split()))
        kind = f"heading-{min(level, 6)}" if level else "lines"
        if parts and parts[-1].kind == kind == "lines":
            parts[-1] = _Part(parts[-1].start, position + len(line), kind)
        else:
            parts.append(_Part(position, position + len(line), kind))
        position += len(line)
    return parts


_BLOCKS = {"fence": "mono", "code_block": "mono", "table_open": "mono", "html_block": "mono"}
_LIST = {"bullet_list_open", "ordered_list_open", "blockquote_open"}


def _split_markdown(text: str, window: Window) -> list[_Part]:
    shown = text[window.start : window.end]
    lines = [0, *(match.end() for match in re.finditer("\n", shown))]
    lines += [len(shown)] * 2
    parts: list[_Part] = []
    position = 0

    def add(end: int, kind: str) -> None:
        nonlocal position
        if end > position:
            parts.append(_Part(window.start + position, window.start + end, kind))
            position = end

    for token in _blocks().parse(shown):
        if token.level or token.map is None:
            continue
        start, end = (lines[min(line, len(lines) - 1)] for line in token.map)
        add(start, "lines")
        add(end, _kind(token))
    add(len(shown), "lines")
    return parts


def _kind(token: Token) -> str:
    if token.type == "heading_open":
        return f"heading-{token.tag[1]}"
    return _BLOCKS.get(token.type, "lines" if token.type in _LIST else "prose")


@cache
def _blocks() -> MarkdownIt:
    # Only where blocks begin and end is wanted.
    return MarkdownIt("commonmark").enable("table").disable(["inline", "text_join"], ignoreInvalid=True)


def heading_levels(paths: Iterable[Sequence[str]]) -> dict[str, int]:
    """The level of each title, by the heading paths of a document's chunks."""
    levels: dict[str, int] = {}
    for path in paths:
        for level, title in enumerate(path, start=1):
            levels.setdefault(" ".join(title.split()), level)
    return levels


def section_of(source: Mapping[str, Any]) -> str:
    """A source's heading path, without the outermost heading, which is its document's title."""
    path = str(source.get("heading") or "").split(" › ")
    return " › ".join(path[1:] if len(path) > 1 or path[0] == source["title"] else path)


_SIGNED_HEADING = re.compile(r"#{1,6} [^\n]*\n+")
_UNDERLINE = re.compile(r"\A[=~^\-]{3,}\s*\n")
_EMPHASIS = re.compile(r"\*\*(\S(?:[^*\n]*\S)?)\*\*|`([^`\n]+)`")


def excerpt_of(source: Mapping[str, Any]) -> str:
    """A source's passage to glance at: without the headings that its card names already and Markdown's signs."""
    text = str(source["text"]).strip()
    last = str(source.get("heading") or "").rsplit(" › ", 1)[-1]
    while (match := _SIGNED_HEADING.match(text)) and text[match.end() :].strip():
        text = text[match.end() :]
    if last and text.startswith(f"{last}\n") and text[len(last) :].strip():
        text = _UNDERLINE.sub("", text[len(last) :].lstrip())
    return _EMPHASIS.sub(lambda match: match[1] or match[2], text)
