"""The usual ways to cut a text, to compare our own chunks with."""

import re
from collections.abc import Callable, Sequence

from knowledge.evaluation.spans import Span

_WORD = re.compile(r"\S+\s*|\s+")
SEPARATORS = ("\n\n", "\n", ". ", "? ", "! ", " ")

CountTokens = Callable[[str], int]


def cut_fixed(text: str, *, count_tokens: CountTokens, size: int, overlap: int) -> list[Span]:
    """Windows of about ``size`` tokens, cut between words, each beginning ``overlap`` tokens before the last one's end."""
    return _windows([match.span() for match in _WORD.finditer(text)], text, count_tokens, size, overlap)


def cut_recursively(text: str, *, count_tokens: CountTokens, size: int, overlap: int) -> list[Span]:
    """Recursive character splitting: at blank lines, what is still too long at line ends, sentences, words; small
    pieces then fill windows of at most ``size`` tokens."""
    return _windows(
        _split((0, len(text)), text, count_tokens, size, SEPARATORS), text, count_tokens, size, overlap
    )


def _split(
    span: Span, text: str, count_tokens: CountTokens, size: int, separators: Sequence[str]
) -> list[Span]:
    start, end = span
    if not separators or count_tokens(text[start:end]) <= size:
        return [span]
    pieces: list[Span] = []
    while start < end:
        found = text.find(separators[0], start, end)
        stop = end if found < 0 else found + len(separators[0])
        pieces += _split((start, stop), text, count_tokens, size, separators[1:])
        start = stop
    return pieces


def _windows(
    pieces: Sequence[Span], text: str, count_tokens: CountTokens, size: int, overlap: int
) -> list[Span]:
    counts = [count_tokens(text[start:end]) for start, end in pieces]
    windows: list[Span] = []
    first, place, held = 0, 0, 0
    while place < len(pieces):
        if held and held + counts[place] > size:
            windows.append((pieces[first][0], pieces[place - 1][1]))
            held, back = 0, place
            while back > first + 1 and held + counts[back - 1] <= overlap:
                back -= 1
                held += counts[back]
            if held + counts[place] > size:  # the overlap must not keep the next piece out
                back, held = place, 0
            first = back
        held += counts[place]
        place += 1
    if first < len(pieces):
        windows.append((pieces[first][0], pieces[-1][1]))
    return [(start, end) for start, end in windows if text[start:end].strip()]
