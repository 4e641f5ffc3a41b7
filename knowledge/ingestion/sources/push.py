"""A source that looks nowhere: documents are sent to it by webhook (``knowledge/webhooks``)."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from django.utils.translation import gettext_lazy as _

from knowledge.ingestion.sources.base import SourceError, SourceItem
from knowledge.ingestion.sources.kinds import SourceKind
from knowledge.models import Source


class PushConnector:
    """Says that there is nothing to be fetched."""

    def check(self) -> str:
        return "Documents are sent to this source: its webhook's page tells where."

    def list_items(self) -> Iterator[SourceItem]:
        raise SourceError("Documents are pushed to this source: there is nothing to fetch.", permanent=True)

    def fetch(self, item: SourceItem) -> bytes:
        raise OSError("there is nothing to fetch")

    def state(self) -> dict[str, Any]:
        return {}

    def stop(self) -> None:
        """Nothing takes long."""

    def close(self) -> None:
        """Nothing is held."""


KIND = SourceKind(
    kind=Source.Kind.PUSH,
    title=_("Pushed by webhook"),
    place="",
    hint=_("Other programs send documents, signed with a secret that is made once the source is there."),
    example="",
    # A collection may have several; none lies anywhere.
    read_place=lambda typed, options: typed if typed.startswith("push/") else f"push/{uuid4().hex[:12]}",
    connect=lambda source: PushConnector(),
)
