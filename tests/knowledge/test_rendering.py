"""Answers and documents as HTML: safe, with every citation where it belongs and every character of a document."""

import re
import time
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowledge.rendering import (
    CitationLink,
    excerpt_of,
    extent_of,
    heading_levels,
    render_answer,
    render_document,
    section_of,
)
from knowledge.windows import WHOLE_LINES, Extent, Window

LINKS = {n: CitationLink(href=f"/documents/{n}/", label=f"Source {n}") for n in (1, 2)}
CITE_1 = '<a class="cite" href="/documents/1/" data-cite="1" aria-label="Source 1">1</a>'
ALLOWED = {
    "p",
    "br",
    "strong",
    "em",
    "s",
    "code",
    "pre",
    "ul",
    "ol",
    "li",
    "blockquote",
    "hr",
    "a",
    "div",
} | {*("h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td")}


class Reader(HTMLParser):
    """Tags, attributes and text of what was rendered."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def cite(text: str, *ends: int, source: int = 1) -> str:
    return render_answer(text, [{"source": source, "start": 0, "end": end} for end in ends], links=LINKS)


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "![pixel](https://evil.example/p.png?q=secret)",
        "[go](javascript:alert(1))",
        "[go](data:text/html,x)",
        "[go](//evil.example/)",
        "[sign out](/sign-out/)",
        "<a href='https://x.example' style='position:fixed'>x</a>",
        "<svg/onload=alert(1)>",
        "<style>*{display:none}</style>",
        "```\n</code></pre><script>alert(1)</script>\n```",
        "| <b onclick=x>a</b> |\n|:-:|\n| <iframe src=//evil> |",
        '[x](https://ok.example "onmouseover=alert(1)")',
        "[a]: https://evil.example/x.png\n\n![a]",
    ],
)
def test_hostile_markdown_becomes_text(hostile: str) -> None:
    reader = Reader(render_answer(hostile))
    assert set(reader.tags) <= ALLOWED
    for name, value in reader.attributes:
        assert name in {"href", "title", "rel", "class", "tabindex"}, name
        if name == "href":
            assert value and value.startswith(("https://", "http://", "mailto:"))


def test_links_lead_to_the_web_and_tell_it_nothing() -> None:
    html = render_answer("See [the RFC](https://www.rfc-editor.org/rfc/rfc4271) and <https://example.org>.")
    assert html.count('rel="noopener noreferrer nofollow"') == 2
    assert 'href="https://www.rfc-editor.org/rfc/rfc4271"' in html


def test_headings_stay_below_those_of_the_page() -> None:
    assert render_answer("# One\n\n###### Six") == "<h3>One</h3>\n<h6>Six</h6>\n"


def test_alignment_is_a_class_because_inline_styles_are_forbidden() -> None:
    html = render_answer("| a | b |\n|---|--:|\n| 1 | 2 |")
    assert '<td class="align-right">2</td>' in html
    assert "style=" not in html


def test_a_marker_follows_what_it_cites() -> None:
    text = "The hold timer is 30 seconds. The limit is 950000."
    assert cite(text, 29) == f"<p>The hold timer is 30 seconds.{CITE_1} The limit is 950000.</p>\n"
    assert cite(text, 30) == cite(text, 29), "white space before the marker is not cited"


def test_two_sources_of_one_span_stand_in_order() -> None:
    citations = [{"source": 2, "start": 0, "end": 2}, {"source": 1, "start": 0, "end": 2}] * 2
    html = render_answer("Ok", citations, links=LINKS)
    assert re.findall(r'data-cite="(\d)"', html) == ["1", "2"]


@pytest.mark.parametrize(
    ("text", "end", "before", "after"),
    [
        (
            "Run:\n\n```\nshow bgp\n```\n\nThen wait.",
            17,
            "show bgp\n</code></pre>\n<p>",
            "</p>\n<p>Then wait.",
        ),
        ("```\nshow bgp", 12, "show bgp\n</code></pre>\n<p>", "</p>"),
        ("- a\n  ```\n  x\n  ```\n- b", 12, "x\n</code></pre>\n<p>", "</p>\n</li>"),
        ("| a |\n|---|\n| 1 |\n\nEnd.", 17, "</table></div>\n<p>", "</p>\n<p>End."),
        ("Use `show bgp` now", 8, "<code>show bgp</code>", " now"),
        ("See [RFC](https://x.example) now", 12, "RFC</a>", " now"),
        ("**Bold.** Next", 9, "<strong>Bold.</strong>", " Next"),
        ("**Bold.** Next", 8, "<strong>Bold.</strong>", " Next"),
        ("- one\n- two", 5, "<li>one", "</li>"),
        ("## Title\n\ntext", 8, "<h4>Title", "</h4>"),
    ],
)
def test_a_marker_breaks_nothing(text: str, end: int, before: str, after: str) -> None:
    html = cite(text, end)
    assert f"{before}{CITE_1}{after}" in html, html


@pytest.mark.parametrize("text", ["`" * 60_000, " ".join("`" * n for n in range(1, 300)), "[" * 20_000])
def test_a_text_of_marks_alone_does_not_hold_up_the_process(text: str) -> None:
    began = time.process_time()
    assert CITE_1 in cite(text, len(text) // 2)
    assert time.process_time() - began < 5, (
        "it would take 20 seconds and more if parts were tried again and again"
    )


def test_offsets_count_characters_beyond_the_basic_plane() -> None:
    assert cite("🛰 up. Next", 5) == f"<p>🛰 up.{CITE_1} Next</p>\n"


@pytest.mark.parametrize(
    "forged",
    [
        "It is so.\u20451\u2046",
        "It is so.&#8261;1&#8262;",
        "It is so.&#x2045;1&#x2046;",
        "`&#8261;1&#8262;\u20451\u2046`",
        "```\n&#8261;1&#8262;\u20451\u2046\n```",
        "    \u20451\u2046",
        '[x](https://ok.example "&#8261;1&#8262;")',
        "![&#8261;1&#8262;](https://ok.example)",
        "<https://ok.example/\u20451\u2046>",
        "[x](https://ok.example/%E2%81%851%E2%81%86)",
    ],
)
def test_marks_in_the_text_are_no_citations(forged: str) -> None:
    html = cite(f"{forged}\n\nSo says the first.", len(forged) + 20)
    assert html.count("data-cite") == 1 and f"first.{CITE_1}" in html, html
    assert set(Reader(html).tags) <= ALLOWED


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('[x](https://ok.example\n"the title")', "the"),
        ('[x](https://ok.example\n"<b>the</b> \\" > title")', "the"),
        ("[x]\n\n[x]: https://ok.example/the/path", "the"),
        ('[x]\n\n[x]: https://ok.example "the title"', "the"),
        ("[x](<https://ok.example/the/\u00e9>\n)", "the"),
        ("``` the\nx\n```", "the"),
    ],
)
def test_a_citation_inside_of_what_is_not_shown_goes_behind_it(text: str, word: str) -> None:
    html = cite(text, text.index(word) + len(word))
    reader = Reader(html)
    assert html.count("data-cite") == html.count(CITE_1) == 1, html
    assert not re.search("[0-9a-f]{16}", html), "nothing of the marker is left"
    links = [value for name, value in reader.attributes if name == "href"]
    assert all(value in ("/documents/1/",) or str(value).startswith("https://ok.example") for value in links)
    assert set(reader.tags) <= ALLOWED


def test_citations_that_point_nowhere_are_left_out() -> None:
    assert "cite" not in cite("Ok.", 99)
    assert "cite" not in cite("Ok.", 3, source=7)


MARKDOWN = st.text(alphabet=st.sampled_from("ab `*_~[]()<>|#-1.\n\t!\\&é🛰⁅⁆\"'"), max_size=60)


@given(text=MARKDOWN, data=st.data())
@settings(max_examples=300, deadline=None)
def test_every_citation_is_shown_once_and_nothing_forbidden(text: str, data: st.DataObject) -> None:
    end = data.draw(st.integers(1, max(1, len(text))))
    reader = Reader(cite(text, end))
    assert set(reader.tags) <= ALLOWED
    assert not re.search("[0-9a-f]{16}", reader.text)
    shown = [value for name, value in reader.attributes if name == "data-cite"]
    assert shown == (["1"] if end <= len(text) else [])


PLAIN = "Title\n\nFirst <b>line</b> & more.\nSecond line.\n\nThird."


@pytest.mark.parametrize("media_type", ["text/plain", "text/markdown", "text/x-config", "application/pdf"])
@given(
    text=st.text(alphabet=st.sampled_from("ab #`-|<>&\n1."), max_size=120),
    start=st.integers(0, 120),
    length=st.integers(1, 60),
)
@settings(max_examples=120, deadline=None)
def test_a_document_keeps_every_character_and_marks_exactly_the_passage(
    media_type: str, text: str, start: int, length: int
) -> None:
    passage = (start, start + length) if start + length <= len(text) else None
    pages = [0, len(text) // 2] if media_type == "application/pdf" and text else []
    html = render_document(
        text, media_type=media_type, window=Window(0, len(text)), passage=passage, pages=pages
    )
    assert Reader(html).text == text
    marked = "".join(Reader(part).text for part in re.findall(r"<mark.*?</mark>", html, re.S))
    assert squeeze(marked) == squeeze(text[slice(*passage)] if passage else "")
    assert html.count('id="passage"') == bool(marked)


def squeeze(text: str) -> str:
    return "".join(text.split())


def test_text_is_escaped() -> None:
    html = render_document(PLAIN, media_type="text/plain", window=Window(0, len(PLAIN)))
    assert "First &lt;b&gt;line&lt;/b&gt; &amp; more." in html


def test_pages_are_numbered() -> None:
    html = render_document("one\n\ntwo", media_type="application/pdf", window=Window(0, 8), pages=[0, 5])
    assert [int(n) for n in re.findall(r'data-page="(\d+)"', html)] == [1, 2]
    assert html.index('data-page="2"') < html.index("two")


def test_headings_are_shown_as_headings() -> None:
    levels = heading_levels([["Guide", "First steps"], ["Guide"]])
    html = render_document(
        "Guide\n\ntext\n\nFirst  steps\n\nmore", media_type="text/html", window=Window(0, 32), headings=levels
    )
    assert '<div class="doc-heading doc-heading-1">Guide</div>' in html
    assert '<div class="doc-heading doc-heading-2">First  steps</div>' in html


def test_a_long_text_is_shown_around_the_passage_in_whole_lines() -> None:
    text = "".join(f"line {n}\n" for n in range(1000))
    at = text.index("line 500\n")
    extent = Extent(characters=400)
    window = Window.around(text, at, extent=extent)
    shown = text[window.start : window.end]
    assert "line 500\n" in shown and len(shown) <= 500
    assert shown.startswith("line ") and shown.endswith("\n")
    assert Window.around("short", 3) == Window(0, 5)
    assert Window.around(text, 0, extent=extent).start == 0
    assert Window.around(text, len(text), extent=extent).end == len(text)


@pytest.mark.parametrize("line", ["- a\n", "a\n=\n", "|x|y\n", "```\n", "[a]: b\n", "# a\n"])
def test_what_is_rendered_at_once_is_bounded_in_lines(line: str) -> None:
    text = f"a|b\n-|-\n{line * (190_000 // len(line))}"
    window = Window.around(text, len(text) // 2, extent=extent_of("text/markdown"))
    assert window.start < len(text) // 2 < window.end
    assert text.count("\n", window.start, window.end) <= WHOLE_LINES.lines + 1
    html = render_document(text, media_type="text/markdown", window=window)
    assert Reader(html).text == text[window.start : window.end]
    assert Window.around(text, 0, extent=extent_of("text/x-config")) == Window(0, len(text))


@given(
    lines=st.lists(st.integers(0, 30), max_size=60),
    extent=st.builds(Extent, st.integers(8, 200), st.integers(4, 20)),
    at=st.integers(0, 2000),
)
@settings(max_examples=300, deadline=None)
def test_from_window_to_window_nothing_is_left_out(lines: list[int], extent: Extent, at: int) -> None:
    text = "".join(f"{'x' * length}\n" for length in lines)
    first = window = Window.around(text, at, extent=extent)
    assert window.start <= min(at, len(text)) <= window.end
    while (after := window.after(text, extent=extent)) is not None:
        later = Window.around(text, after, extent=extent)
        assert later.start <= window.end < later.end
        window = later
    assert window.end == len(text)
    while (before := first.before(text, extent=extent)) is not None:
        earlier = Window.around(text, before, extent=extent)
        assert earlier.start < first.start <= earlier.end
        first = earlier
    assert first.start == 0


def test_a_card_says_nothing_twice() -> None:
    source = {"title": "BGP", "heading": "BGP › Repair", "text": "## Repair\n\nDo **not** run `clear`."}
    assert section_of(source) == "Repair"
    assert excerpt_of(source) == "Do not run clear."
    assert section_of({"title": "PM 12", "heading": "Post-mortem PM-12 › Cause › Why"}) == "Cause › Why"
    assert section_of({"title": "PM 12", "heading": "Cause"}) == "Cause"
    assert section_of({"title": "PM 12", "heading": ""}) == ""
    assert excerpt_of({"heading": "Procedure", "text": "Procedure\n=========\n\n1. Drain."}) == "1. Drain."
    assert excerpt_of({"heading": "WHO", "text": "WHO\n\nThe desk."}) == "The desk."
    assert excerpt_of({"heading": "", "text": "# Title alone"}) == "# Title alone"
