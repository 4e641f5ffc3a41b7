"""Reading the audit log: narrowed, a page at a time, however long it is.

Every filter but the text has an index that ends in the time. The text is looked for in windows of the log, newest first,
so that a word that is not there costs the same however many rows there are: the page says how far it has looked.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeAlias

from django.db.models import Q, QuerySet, TextField
from django.db.models.functions import Cast

from tenants.audit_words import ACTIONS
from tenants.models import AuditEvent, Membership
from tenants.paging import NEWEST, Place, cursor_of, read_cursor, rows_after, write_cursor

LATEST = replace(NEWEST, field="at")
PAGE = 50
EXPORT_BATCH = 500
WINDOW = 20_000  # events that one search for a text looks at

# Of a member and the ids of things of one type: those that the member may read.
Readable: TypeAlias = Callable[[Membership, set[str]], set[str]]
_guarded: dict[str, Readable] = {}


def guard_targets(target_type: str, readable: Readable) -> None:
    """What the log says of these, their names too, is for those who may read them."""
    _guarded[target_type] = readable


def tell_events(events: Sequence[AuditEvent], *, reader: Membership) -> list[AuditEvent]:
    """Events as the reader may see them: without the detail where it is of something that their role does not read."""
    for target_type, readable in _guarded.items() if _is_limited(reader) else ():
        about = [event for event in events if event.target_type == target_type]
        ids = {event.target_id for event in about}
        hidden = ids - readable(reader, ids) if ids else set()
        for event in about:
            if event.target_id in hidden:
                event.detail = {"withheld": True}
    return list(events)


def _is_limited(reader: Membership) -> bool:
    return reader.role.readable_tags is not None


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


def read_log(
    events: "QuerySet[AuditEvent]", asked: Asked, *, reader: Membership, after: str = "", size: int = PAGE
) -> Found:
    """One page of ``events``, newest first, as the reader may see them.

    A text is not looked for in the details of what not everybody reads, unless the reader reads everything.

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
        in_detail = Q(words__icontains=asked.text)
        if _is_limited(reader):
            in_detail &= ~Q(target_type__in=_guarded)
        rows = rows.annotate(words=words).filter(
            in_detail
            | Q(action__icontains=asked.text)
            | Q(actor_name__icontains=asked.text)
            | Q(target_id__icontains=asked.text)
        )
    found = list(rows[: size + 1])
    told = tell_events(found[:size], reader=reader)
    if len(found) > size:
        return Found(rows=told, next=cursor_of(told[-1], LATEST))
    return Found(rows=told, next=write_cursor(edge) if edge else "", looked_to=edge[0] if edge else None)


def stream_log(events: "QuerySet[AuditEvent]", asked: Asked, *, reader: Membership) -> Iterator[AuditEvent]:
    """Every event that fits, newest first, in bounded memory and without a statement that could take long."""
    after = ""
    while True:
        found = read_log(events, asked, reader=reader, after=after, size=EXPORT_BATCH)
        yield from found.rows
        if not found.next:
            return
        after = found.next
