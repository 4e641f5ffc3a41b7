"""Reading the audit log: narrowed, a page at a time, however long it is.

Every filter but the text has an index that ends in the time. The text is looked for in windows of the log, newest first,
so that a word that is not there costs the same however many rows there are: the page says how far it has looked.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.db.models import Q, QuerySet, TextField
from django.db.models.functions import Cast

from tenants.audit_words import ACTIONS
from tenants.models import AuditEvent
from tenants.paging import NEWEST, Place, cursor_of, read_cursor, rows_after, write_cursor

LATEST = replace(NEWEST, field="at")
PAGE = 50
EXPORT_BATCH = 500
WINDOW = 20_000  # events that one search for a text looks at


@dataclass(frozen=True)
class Asked:
    """What the log is narrowed to: ``action`` exactly, or all that begin so where it ends with a dot."""

    action: str = ""
    actor: str = ""
    target: str = ""
    text: str = ""
    start: datetime | None = None
    end: datetime | None = None

    @property
    def is_narrowed(self) -> bool:
        return any((self.action, self.actor, self.target, self.text, self.start, self.end))

    def facts(self) -> dict[str, Any]:
        """For the log itself, when it is exported."""
        values = {
            "action": self.action,
            "actor": self.actor,
            "target": self.target,
            "text": self.text,
            "from": self.start and self.start.isoformat(),
            "to": self.end and self.end.isoformat(),
        }
        return {name: value for name, value in values.items() if value}


@dataclass(frozen=True)
class Found:
    """A page of the log.

    Attributes:
        next: where to go on; empty at the end of the log.
        looked_to: with a text alone: up to when the log was searched, if not to its end.
    """

    rows: list[AuditEvent]
    next: str
    looked_to: datetime | None = None


def narrow(events: "QuerySet[AuditEvent]", asked: Asked) -> "QuerySet[AuditEvent]":
    """All of ``asked`` but the text."""
    if asked.action.endswith("."):
        # By name where the names are known: LIKE would pass an index in the database's own collation by.
        known = [action for action in ACTIONS if action.startswith(asked.action)]
        events = events.filter(action__in=known) if known else events.filter(action__startswith=asked.action)
    elif asked.action:
        events = events.filter(action=asked.action)
    if asked.actor:
        events = events.filter(actor_name=asked.actor)
    if asked.target:
        events = events.filter(target_id=asked.target)
    if asked.start:
        events = events.filter(at__gte=asked.start)
    if asked.end:
        events = events.filter(at__lt=asked.end)
    return events


def read_log(events: "QuerySet[AuditEvent]", asked: Asked, *, after: str = "", size: int = PAGE) -> Found:
    """One page of ``events`` (what the reader may see), newest first.

    Raises:
        Problem: 400 for a cursor that is not one of ours.
    """
    rows = rows_after(narrow(events, asked), LATEST, read_cursor(after, LATEST) if after else None)
    edge: Place | None = None
    if asked.text:
        last = rows.values_list("at", "id")[WINDOW - 1 : WINDOW].first()
        if last is not None:
            at, pk = edge = last
            rows = rows.filter(Q(at__gt=at) | Q(at=at, id__gte=pk)).filter(at__gte=at)
        words = Cast("detail", TextField())
        rows = rows.annotate(words=words).filter(
            Q(words__icontains=asked.text)
            | Q(action__icontains=asked.text)
            | Q(actor_name__icontains=asked.text)
            | Q(target_id__icontains=asked.text)
        )
    found = list(rows[: size + 1])
    if len(found) > size:
        return Found(rows=found[:size], next=cursor_of(found[size - 1], LATEST))
    return Found(rows=found, next=write_cursor(edge) if edge else "", looked_to=edge[0] if edge else None)


def stream_log(events: "QuerySet[AuditEvent]", asked: Asked) -> Iterator[AuditEvent]:
    """Every event that fits, newest first, in bounded memory and without a statement that could take long."""
    after = ""
    while True:
        found = read_log(events, asked, after=after, size=EXPORT_BATCH)
        yield from found.rows
        if not found.next:
            return
        after = found.next
