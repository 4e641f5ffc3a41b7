from knowledge.ingestion.parse import parse_document


def parse(text: str, filename: str = "a.md"):
    return parse_document(data=text.encode(), filename=filename)


def test_the_text_is_the_markdown_itself():
    text = "# Title\n\nSome *words* and `code`.\n\n[a]: https://example.com\n"
    assert parse(text).text == text


def test_headings_of_both_styles_with_their_offsets():
    text = "Guide\n=====\n\n## A `b` [c](https://x) {#anchor}\n\n```\n# no heading\n```\n\nSub\n---\n"
    parsed = parse(text)
    assert [(heading.level, heading.title) for heading in parsed.headings] == [
        (1, "Guide"),
        (2, "A b c"),
        (2, "Sub"),
    ]
    assert [parsed.text[heading.start :][:5] for heading in parsed.headings] == ["Guide", "## A ", "Sub\n-"]
    assert parsed.title == "Guide"


def test_blocks_are_the_top_level_elements():
    text = (
        "# T\n\nwords\nmore\n\n- a\n  - b\n\n  still a\n- c\n\n| x | y |\n|---|---|\n| 1 | 2 |\n\n"
        "```sh\nls\n\nps\n```\n"
        "\n1. one\n2. two\n\n> quoted\n"
    )
    parsed = parse(text)
    blocks = [(block.kind, parsed.text[block.start : block.end]) for block in parsed.blocks]
    assert [kind for kind, _ in blocks] == [
        "heading",
        "paragraph",
        "list",
        "table",
        "code",
        "list",
        "paragraph",
    ]
    assert blocks[2][1] == "- a\n  - b\n\n  still a\n- c"
    assert blocks[4][1] == "```sh\nls\n\nps\n```"


def test_tables_are_known_by_their_delimiter_row():
    tables = ("|a|b|\n|---|---|\n|1|2|", "a | b\n:-- | --:\n1 | 2", "| a |\n|---|\n| 1 |", "|a|b|\n|-|-|")
    for table in tables:
        parsed = parse(f"These are:\n{table}\n\nAfter | it.\n")
        assert [(block.kind, parsed.text[block.start : block.end]) for block in parsed.blocks] == [
            ("paragraph", "These are:"),
            ("table", table),
            ("paragraph", "After | it."),
        ]
    assert parse("a | b\n|||\nc\n").blocks[0].kind == "paragraph"


def test_front_matter_gives_the_title_and_leaves_the_text():
    parsed = parse("---\ntitle: 'The guide'\ntags: [a]\n---\n# Other\n\nwords\n")
    assert parsed.title == "The guide"
    assert parsed.text == "# Other\n\nwords\n"


def test_what_only_looks_like_front_matter_stays():
    for text in ("---\njust words\n---\nmore\n", "---\n: [broken\n---\nmore\n", "---\ntitle: alone\n---\n"):
        assert parse(text).text == text


def test_without_a_heading_the_title_is_the_file_name():
    assert parse("words\n", "mtu-policy.md").title == "MTU policy"
