"""The port to the places that documents come from."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


class SourceError(Exception):
    """The source as a whole cannot be read; the message says what to do. ``permanent`` ones are not retried."""

    def __init__(self, message: str, *, permanent: bool) -> None:
        super().__init__(message)
        self.permanent = permanent


@dataclass(frozen=True)
class SourceItem:
    """One document of a source: ``uri`` is its path there, ``size`` in bytes."""

    uri: str
    size: int


class SourceConnector(Protocol):
    """Lists and fetches."""

    def list_items(self) -> Iterator[SourceItem]:
        """Every document of the source, in a stable order. Raises SourceError."""
        ...

    def fetch(self, item: SourceItem) -> bytes:
        """A document's bytes. Raises OSError when it has just gone, SourceError when it may not be read."""
        ...
