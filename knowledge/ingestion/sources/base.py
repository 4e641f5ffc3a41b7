"""The port to the places that documents come from."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol


class SourceError(Exception):
    """The source as a whole cannot be read; the message says what to do. ``permanent`` ones are not retried."""

    def __init__(self, message: str, *, permanent: bool) -> None:
        super().__init__(message)
        self.permanent = permanent


class ItemError(SourceError):
    """One document cannot be had; it says nothing of the source as a whole."""


@dataclass(frozen=True)
class SourceItem:
    """One document of a source.

    Attributes:
        uri: its path there, at most 1,000 characters; its ending tells the format.
        size: in bytes; 0 where the source does not say.
        fingerprint: what the source says of the content (commit's blob, ETag, time and size), at most 200 characters.
            The same as at the last sync: unchanged, and never fetched. Empty: fetch it to see.
        title: replaces the one found in the file.
        media_type: as the source gives it, where the URI has no telling ending; else empty.
    """

    uri: str
    size: int
    fingerprint: str = ""
    title: str = ""
    media_type: str = ""


class SourceConnector(Protocol):
    """Lists and fetches. Made for one sync or one check, closed after it."""

    def check(self) -> str:
        """Asks the place once, with its credentials, and says in a sentence what is there. Changes nothing.

        Raises SourceError.
        """
        ...

    def list_items(self) -> Iterator[SourceItem]:
        """Every document of the source, in a stable order. Raises SourceError."""
        ...

    def fetch(self, item: SourceItem) -> bytes:
        """A document's bytes. Raises OSError when it has just gone, SourceError when it may not be read.

        ItemError where that is known to be this document's own matter.
        """
        ...

    def state(self) -> dict[str, Any]:
        """What the next sync should know (JSON); kept with the source once this one has gone through."""
        ...

    def stop(self) -> None:
        """Called while another thread lists or fetches: nobody waits for that any more, and it should end soon."""
        ...

    def close(self) -> None:
        """Gives back what it holds: processes, connections, temporary files."""
        ...
