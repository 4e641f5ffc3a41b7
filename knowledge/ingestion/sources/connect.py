"""Every kind of source, and from a source's row to its connector."""

from collections.abc import Iterator
from contextlib import contextmanager

from knowledge.ingestion.sources import folder, git, push, s3, web_kind
from knowledge.ingestion.sources.base import SourceConnector, SourceError
from knowledge.ingestion.sources.kinds import SourceKind
from knowledge.models import Source
from ragsite.core.secrets import SecretLost

KINDS: dict[str, SourceKind] = {
    each.kind: each for each in (folder.KIND, git.KIND, web_kind.KIND, s3.KIND, push.KIND)
}


def kind_of(source: Source) -> SourceKind:
    """What a source's kind says of itself.

    Raises:
        SourceError: it is one that this version does not know.
    """
    kind = KINDS.get(source.kind)
    if kind is None:
        raise SourceError(f"There are no sources of the kind {source.kind} here.", permanent=True)
    return kind


@contextmanager
def connect(source: Source) -> Iterator[SourceConnector]:
    """The connector of a source, closed at the end.

    Raises:
        SourceError: it points to where it may not, or what it needs is missing.
    """
    try:
        connector = kind_of(source).connect(source)
    except SecretLost as error:
        raise SourceError(str(error), permanent=True) from None
    try:
        yield connector
    finally:
        connector.close()
