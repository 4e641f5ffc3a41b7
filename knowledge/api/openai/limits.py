"""Where a client wants its text to end: after so many tokens, or before a string of its own."""

from typing import Any, Literal

from knowledge.answering.compress import CHARS_PER_TOKEN


class TextLimit:
    """Lets a text through, part by part, up to where it is to end.

    Attributes:
        end: where it was cut, in characters, ``reason`` why; ``None`` while it was not.

    Args:
        tokens: estimated, since what quoted a text or had it cached has counted none.
        stops: it ends before the first of them. What may be the beginning of one is held back until that is known.
    """

    def __init__(self, *, tokens: int | None = None, stops: tuple[str, ...] = ()) -> None:
        self._chars = None if tokens is None else tokens * CHARS_PER_TOKEN
        self._stops = stops
        self._held = ""
        self._given = 0
        self.end: int | None = None
        self.reason: Literal["length", "stop"] | None = None

    def take(self, text: str) -> str:
        """The next part as it may go out now."""
        if self.end is not None:
            return ""
        text = self._held + text
        room = len(text) if self._chars is None else self._chars - self._given
        fitting = text[:room]
        found = [at for stop in self._stops if (at := fitting.find(stop)) >= 0]
        if found:
            return self._cut(fitting[: min(found)], reason="stop")
        if len(text) > room:
            return self._cut(fitting, reason="length")
        sure = len(fitting) - self._begun_stop(fitting)
        self._held = fitting[sure:]
        self._given += sure
        return fitting[:sure]

    def finish(self) -> str:
        """What was held back, when nothing more comes."""
        held, self._held = self._held, ""
        self._given += len(held)
        return held

    def clip(self, spans: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Of citations or marks of the text those of what went out."""
        end = self.end
        if end is None:
            return spans
        return [{**span, "end": min(span["end"], end)} for span in spans if span["start"] < end]

    def _cut(self, text: str, *, reason: Literal["length", "stop"]) -> str:
        self._held = ""
        self._given += len(text)
        self.end, self.reason = self._given, reason
        return text

    def _begun_stop(self, text: str) -> int:
        """The length of the longest end of the text with which a stop string begins."""
        longest = min(len(text), max(map(len, self._stops), default=1) - 1)
        sizes = range(longest, 0, -1)
        return next((n for n in sizes if any(stop.startswith(text[-n:]) for stop in self._stops)), 0)
