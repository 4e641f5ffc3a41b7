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
from knowledge.rendering import CitationLink, excerpt_of, render_answer, section_of, text_with_numbers
from tenants.models import Membership


@dataclass(frozen=True)
class ShownSource:
    """A source as a card shows it."""

    data: dict[str, Any]
    href: str
    section: str
    excerpt: str
    facts: list[str]
    cited: bool


@dataclass(frozen=True)
class ShownMark:
    """A sentence that its sources do not support, and why, in a few words."""

    text: str
    why: str


@dataclass(frozen=True)
class ShownAnswer:
    """An answer as a page shows it; ``data`` is the API's answer object."""

    data: dict[str, Any]
    html: SafeString
    sources: list[ShownSource]
    time: str
    confidence: str
    own: bool
    stopped: bool
    marked: list[ShownMark]


def describe_mark(reason: str) -> str:
    """Why a sentence is marked."""
    return {
        "names": _("the sources do not hold its names or numbers"),
        "negation": _("the sources say the opposite"),
        "cut_off": _("the answer was cut off here"),
    }.get(reason, _("the sources do not say it"))


def describe_age(updated: str | datetime) -> str:
    """How long ago something changed, in days or coarser."""
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


def describe_confidence(confidence: float) -> str:
    """The quality tier of the evidence, by the tiers of a retrieval score."""
    tiers = ((0.8, _("excellent")), (0.6, _("good")), (0.4, _("fair")))
    return next((word for floor, word in tiers if confidence >= floor), _("poor"))


def describe_source(source: dict[str, Any]) -> list[str]:
    """Page, score and age of a source, each in a few words."""
    page = [_("page %(page)d") % {"page": source["page"]}] if source["page"] else []
    score = _("score %(score)s") % {"score": f"{source['score']:.2f}"}
    return [*page, score, _("updated %(age)s") % {"age": describe_age(source["updated_at"])}]


def source_href(source: dict[str, Any], *, answer: str) -> str:
    """The page of a source's document, at its passage."""
    query = {"start": source["start"], "end": source["end"], "answer": answer, "n": source["n"]}
    return f"{reverse('document-page', args=[source['document_id']])}?{urlencode(query)}#passage"


def show_answer(data: dict[str, Any], *, own: bool, stopped: bool = False) -> ShownAnswer:
    """An answer object, ready for its template."""
    cited = {citation["source"] for citation in data["citations"]}
    sources = [
        ShownSource(
            data=source,
            href=source_href(source, answer=data["request_id"]),
            section=section_of(source),
            excerpt=excerpt_of(source),
            facts=describe_source(source),
            cited=source["n"] in cited,
        )
        for source in data["sources"]
    ]
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
        confidence=describe_confidence(data["confidence"]),
        own=own,
        stopped=stopped,
        marked=[
            ShownMark(" ".join(data["answer"][m["start"] : m["end"]].split()), describe_mark(m["reason"]))
            for m in data.get("marks", [])
        ],
    )


def show_answers(answers: list[Answer], membership: Membership) -> list[ShownAnswer]:
    """Answers as this member may see them now."""
    return [
        show_answer(data, own=row.user_id == membership.user_id, stopped=row.is_broken)
        for row, data in zip(answers, present_answers(answers, membership=membership), strict=True)
    ]


def write_out(data: dict[str, Any], *, site: str) -> str:
    """An answer with its sources as text, to be pasted elsewhere.

    Args:
        site: the address that the paths of the documents are added to.
    """
    cited = {citation["source"] for citation in data["citations"]}
    lines = [data["question"], "", text_with_numbers(data["answer"], data["citations"]).strip()]
    sources = [s for s in data["sources"] if s["n"] in cited or not data["answered"]]
    if sources:
        lines += ["", _("Sources") if data["answered"] else _("Nearest passages")]
    for source in sources:
        page = _("page %(page)d") % {"page": source["page"]} if source["page"] else ""
        what = ", ".join(part for part in (source["title"], source["uri"], page) if part)
        lines.append(f"[{source['n']}] {what}")
        lines.append(f"    {site}{source_href(source, answer=data['request_id'])}")
    return "\n".join(lines) + "\n"


def place_of(conversation: UUID | str, answer: UUID | str, *, earlier: bool = False) -> str:
    """The address of an answer in its conversation.

    Args:
        earlier: it may be one of those that a long conversation's page leaves out unless it is asked for.
    """
    query = f"?{urlencode({'from': str(answer)})}" if earlier else ""
    return f"{reverse('conversation-page', args=[conversation])}{query}#answer-{answer}"


def uuid_in(text: str) -> UUID:
    """The id that a query or a form names; where it names none, one that is nobody's."""
    try:
        return UUID(text)
    except ValueError:
        return UUID(int=0)
