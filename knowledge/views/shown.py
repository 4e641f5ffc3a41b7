"""Answers and documents as pages show them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.urls import reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from knowledge.answering.record import present_answers
from knowledge.models import Answer
from knowledge.rendering import CitationLink, excerpt_of, render_answer, section_of
from tenants.models import Membership


@dataclass(frozen=True)
class ShownSource:
    """A source as a card shows it."""

    data: dict[str, Any]
    href: str
    section: str
    excerpt: str
    age: str
    cited: bool


@dataclass(frozen=True)
class ShownAnswer:
    """An answer as a page shows it; ``data`` is the API's answer object."""

    data: dict[str, Any]
    html: SafeString
    sources: list[ShownSource]
    time: str
    stopped: bool


def describe_age(updated: str | datetime) -> str:
    """How long ago a document changed, in days or coarser."""
    then = parse_datetime(updated) if isinstance(updated, str) else updated
    if then is None:
        return ""
    days = (timezone.now().date() - then.date()).days
    if days < 1:
        return _("today")
    if days < 60:
        return ngettext("%(n)d day ago", "%(n)d days ago", days) % {"n": days}
    if days < 730:
        return ngettext("%(n)d month ago", "%(n)d months ago", days // 30) % {"n": days // 30}
    return ngettext("%(n)d year ago", "%(n)d years ago", days // 365) % {"n": days // 365}


def show_answer(data: dict[str, Any], *, stopped: bool = False) -> ShownAnswer:
    """An answer object, ready for its template."""
    cited = {citation["source"] for citation in data["citations"]}
    sources = []
    for source in data["sources"]:
        place = {"start": source["start"], "end": source["end"]}
        query = urlencode(place | {"answer": data["request_id"], "n": source["n"]})
        sources.append(
            ShownSource(
                data=source,
                href=f"{reverse('document-page', args=[source['document_id']])}?{query}#passage",
                section=section_of(source),
                excerpt=excerpt_of(source),
                age=describe_age(source["updated_at"]),
                cited=source["n"] in cited,
            )
        )
    links = {
        s.data["n"]: CitationLink(
            s.href, _("Source %(n)d: %(title)s") % {"n": s.data["n"], "title": s.data["title"]}
        )
        for s in sources
    }
    ms = data["latency_ms"]
    return ShownAnswer(
        data=data,
        html=render_answer(data["answer"], data["citations"], links=links),
        sources=sources,
        time=f"{ms / 1000:.1f} s" if ms >= 1000 else f"{ms:.0f} ms",
        stopped=stopped,
    )


def show_answers(answers: list[Answer], membership: Membership) -> list[ShownAnswer]:
    """Answers as this member may see them now."""
    return [
        show_answer(data, stopped=row.status in ("cancelled", "error"))
        for row, data in zip(answers, present_answers(answers, membership=membership), strict=True)
    ]


def place_of(conversation: UUID | str, answer: UUID | str) -> str:
    """The address of an answer in its conversation."""
    return f"{reverse('conversation-page', args=[conversation])}#answer-{answer}"


def uuid_in(text: str) -> UUID:
    """The id that a query or a form names; where it names none, one that is nobody's."""
    try:
        return UUID(text)
    except ValueError:
        return UUID(int=0)
