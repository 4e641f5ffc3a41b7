"""Every word that a page shows can be translated."""

import re
from pathlib import Path

import pytest

TEMPLATES = Path(__file__).parents[2] / "templates"
FOR_BUILDERS = {"styleguide.html"}  # seen in dev alone
NAMES = {
    "GitHub",
    "GitLab",
    "Gitea",
    "Forgejo",
    "Standard",
    "Webhooks",
    "ragsite",
    "Enter",
    "Shift",
    "Esc",
    "Ctrl",
    "MB",
    "CSV",
    "JSON",
    "ms",
    "KiB",
    "API",
    "UTC",
}

GONE = [
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"\{% comment %\}.*?\{% endcomment %\}",
        r"\{#.*?#\}",
        r"<!--.*?-->",
        r"\{% blocktrans(?:late)?\b.*?\{% endblocktrans(?:late)? %\}",
        r"<(script|style|svg|code|pre)\b.*?</\1>",
    )
]
SHOWN_ATTRIBUTE = re.compile(r'\b(?:title|aria-label|placeholder|alt)="([^"]*)"')
EXPRESSION = re.compile(r"\{%.*?%\}|\{\{.*?\}\}", re.DOTALL)
WORD = re.compile(r"[A-Za-z]{2,}")


def untranslated(text: str) -> list[str]:
    """The words that stand in a template as they are."""
    for pattern in GONE:
        text = pattern.sub(" ", text)
    text = EXPRESSION.sub(" ", text)
    shown = [*SHOWN_ATTRIBUTE.findall(text), re.sub(r"<[^>]*>", " ", text)]
    shown[-1] = re.sub(
        r"&[a-z]+;|\b[a-z-]+=\"[^\"]*\"", " ", shown[-1]
    )  # attributes that a block hands to a tag
    return [word for part in shown for word in WORD.findall(part) if word not in NAMES]


def templates() -> list[Path]:
    return sorted(
        path
        for path in TEMPLATES.rglob("*")
        if path.suffix in (".html", ".txt") and path.name not in FOR_BUILDERS
    )


@pytest.mark.parametrize("path", templates(), ids=lambda path: str(path.relative_to(TEMPLATES)))
def test_no_word_is_left_out_of_the_translation(path: Path) -> None:
    assert untranslated(path.read_text()) == []


def test_the_check_sees_bare_words() -> None:
    assert untranslated('<p title="Bare">{% translate "Fine" %} {{ value }} words</p>') == ["Bare", "words"]
    assert untranslated("{% blocktranslate trimmed %}All {{ n }} fine{% endblocktranslate %}") == []
