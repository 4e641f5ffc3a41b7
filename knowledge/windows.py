"""The part of a long document that a page shows at once, and where the parts before and after it are."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Extent:
    """How much is shown at once: more characters make a browser slow, more lines the rendering of their blocks."""

    characters: int = 200_000
    lines: int = 2_500

    def part(self, quarters: int) -> "Extent":
        return Extent(self.characters * quarters // 4, self.lines * quarters // 4)


WHOLE_LINES = Extent()
# What is one block whatever its lines say costs nothing by the line.
ONE_BLOCK = Extent(lines=WHOLE_LINES.characters)


@dataclass(frozen=True)
class Window:
    """The part of a long text that a page shows: ``text[start:end]``, whole lines."""

    start: int
    end: int

    @classmethod
    def around(cls, text: str, position: int, *, extent: Extent = WHOLE_LINES) -> "Window":
        """The whole text where it is short, else lines that begin a quarter of ``extent`` before."""
        if len(text) <= extent.characters and text.count("\n") <= extent.lines:
            return cls(0, len(text))
        position = min(position, len(text))
        first = _back(text, position, extent.part(1))
        last = _ahead(text, first, extent)
        start = text.rfind("\n", 0, first) + 1
        cut = text.rfind("\n", position, last) + 1
        return cls(start, cut if cut and last < len(text) else last)

    def before(self, text: str, *, extent: Extent = WHOLE_LINES) -> int | None:
        """A position around which the window reaches to the start of this one; none at the start of the text."""
        return _back(text, self.start, extent.part(3)) if self.start else None

    def after(self, text: str, *, extent: Extent = WHOLE_LINES) -> int | None:
        """A position around which the window begins where this one ends; none at the end of the text."""
        return _ahead(text, self.end, extent.part(1)) if self.end < len(text) else None


def _ahead(text: str, position: int, extent: Extent) -> int:
    """The place ``extent`` further on: so many characters, or behind so many ends of lines, whichever comes first."""
    end = min(len(text), position + extent.characters)
    for _ in range(extent.lines):
        found = text.find("\n", position, end)
        if found < 0:
            return end
        position = found + 1
    return position


def _back(text: str, position: int, extent: Extent) -> int:
    """The place ``extent`` before, likewise; right before the end of a line."""
    start = max(0, position - extent.characters)
    for _ in range(extent.lines):
        found = text.rfind("\n", start, position)
        if found < 0:
            return start
        position = found
    return position
