import pytest

from knowledge.ingestion.chunk import chunk_document
from knowledge.ingestion.parse import ParseError, parse_document


def parse(html: str | bytes, filename: str = "page.html"):
    return parse_document(data=html.encode() if isinstance(html, str) else html, filename=filename)


def blocks_of(parsed):
    return [(block.kind, parsed.text[block.start : block.end]) for block in parsed.blocks]


def test_readable_text_in_reading_order():
    parsed = parse(
        "<html><head><title>The  page</title></head><body><h1>Guide</h1><p>Some <b>bold</b>\n"
        " words.<br>Next line.</p>"
        "loose text<h2>Part <i>two</i></h2><div><div>deep</div></div></body></html>"
    )
    assert parsed.title == "The page"
    assert blocks_of(parsed) == [
        ("heading", "Guide"),
        ("paragraph", "Some bold words.\nNext line."),
        ("paragraph", "loose text"),
        ("heading", "Part two"),
        ("paragraph", "deep"),
    ]
    assert [(heading.level, heading.title) for heading in parsed.headings] == [(1, "Guide"), (2, "Part two")]
    assert all(parsed.text[heading.start :].startswith(heading.title) for heading in parsed.headings)


def test_lists_tables_and_preformatted_text():
    parsed = parse(
        "<ul><li>one<ul><li>inner</li></ul></li><li><p>two</p><p>more</p></li></ul><ol><li>first<li>second</ol>"
        "<table><tr><th>Port</th><th>Speed</th></tr><tr><td>xe-0</td><td><p>10</p><p>G</p></td></tr></table>"
        "<pre>line 1\n  line 2</pre>"
    )
    assert blocks_of(parsed) == [
        ("list", "- one\n  - inner\n- two\n  more"),
        ("list", "1. first\n2. second"),
        ("table", "| Port | Speed |\n| xe-0 | 10 G |"),
        ("code", "line 1\n  line 2"),
    ]


def test_scripts_navigation_footers_and_hidden_elements_are_left_out():
    parsed = parse(
        "<nav>menu</nav><script>evil()</script><style>p{}</style><p>kept</p><p hidden>h1</p>"
        "<p aria-hidden='true'>h2</p>"
        "<p style='color:red; DISPLAY : none'>h3</p><div role='navigation'>h4</div><template>h5</template>"
        "<noscript>h6</noscript><!-- h7 --><p>also kept</p><footer>imprint</footer>"
    )
    assert parsed.text == "kept\n\nalso kept"


def test_a_heading_without_end_is_not_repeated_whole_before_every_part():
    words = " ".join(f"word{number}" for number in range(5000))
    parsed = parse(f"<h1>{words}</h1>" + "<p>A paragraph of some words.</p>" * 500)
    assert [len(heading.title) for heading in parsed.headings] == [200]
    assert words in parsed.text  # of the text itself nothing is lost
    spans = chunk_document(parsed, count_tokens=lambda text: len(text.split()))
    assert sum(len(title) for span in spans for title in span.heading_path) < len(parsed.text)


def test_a_page_without_a_title_takes_its_first_heading_then_its_file_name():
    assert parse("<h1>Guide</h1><p>x</p>").title == "Guide"
    assert parse("<p>x</p>", "dns-faq.html").title == "DNS FAQ"


def test_a_declared_charset_is_honoured_and_a_false_one_ignored():
    assert "Zürich" in parse("<meta charset='iso-8859-1'><p>Zürich</p>".encode("latin-1")).text
    assert "Zürich" in parse("<meta charset='no-such'><p>Zürich in der Schweiz</p>".encode()).text
    assert (
        "Ж"
        in parse(
            '<meta http-equiv="Content-Type" content="text/html; charset=koi8-r">Ж'.encode("koi8-r")
        ).text
    )


def test_entities_of_a_dtd_are_not_expanded(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    parsed = parse(f'<!DOCTYPE html [<!ENTITY x SYSTEM "file://{secret}">]><p>before &x; after</p>')
    assert "hunter2" not in parsed.text


def test_depth_does_not_exhaust_the_stack():
    parsed = parse("<div>" * 5_000 + "deep" + "</div>" * 5_000)
    assert parsed.text == "deep"


def test_a_page_without_text_is_refused():
    with pytest.raises(ParseError) as caught:
        parse("<html><body><script>render()</script></body></html>")
    assert caught.value.code == "no_text"
