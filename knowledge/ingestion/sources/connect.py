"""From a source's row to its connector."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from knowledge.ingestion.sources.base import SourceConnector
from knowledge.ingestion.sources.folder import FolderConnector, resolve_folder
from knowledge.models import Source


@contextmanager
def connect(source: Source) -> Iterator[SourceConnector]:
    """The connector of a source, closed at the end.

    Raises:
        SourceError: it points to where it may not, or what it needs is missing.
    """
    connector = _connector_of(source)
    try:
        yield connector
    finally:
        connector.close()


def _connector_of(source: Source) -> SourceConnector:
    match source.kind:
        case Source.Kind.FOLDER:
            return FolderConnector(Path(source.path) if source.trusted else resolve_folder(source.path))
        case _:
            raise ValueError(f"No connector for sources of the kind {source.kind}.")
