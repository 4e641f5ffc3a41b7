"""An answer as the admin shows it: rendered, with its sources, and how it came about.

What the reader's role may not read stays hidden here as on our pages: ``present_answers`` withholds it.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.urls import reverse
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from knowledge.answering.record import present_answers
from knowledge.models import Answer
from knowledge.rendering import CitationLink, excerpt_of, render_answer, section_of
from knowledge.views.shown import describe_confidence, describe_source, source_href
from tenants.access import Principal
from tenants.admin_operator import is_visiting
from tenants.models import UsageRecord

# The calls of an answer are written with it; within so much the ledger's index finds them.
CALLS_WITHIN = timedelta(hours=1)
CALLS_SHOWN = 50


@dataclass(frozen=True)
class TracedSource:
    """A source: ``href`` leads to its document, ``anchor`` to its place on the page."""

    data: dict[str, Any]
    anchor: str
    href: str
    section: str
    excerpt: str
    facts: list[str]
    cited: bool


@dataclass(frozen=True)
class Stage:
    """A stage of the journey; ``share`` of the longest in percent."""

    name: str
    ms: float
    share: int


@dataclass(frozen=True)
class ShownAnswer:
    """``data`` is the API's answer object as this reader may see it; ``withheld`` where a part of it is hidden."""

    answer: Answer
    data: dict[str, Any]
    html: SafeString
    sources: list[TracedSource]
    confidence: str
    withheld: bool


@dataclass(frozen=True)
class Trace:
    shown: ShownAnswer
    stages: list[Stage]
    calls: list[UsageRecord]
    hidden: int


def show_answer(answer: Answer, principal: Principal) -> ShownAnswer:
    """An answer as its reader in the admin may see it."""
    data = present_answers([answer], membership=principal.membership)[0]
    cited = {citation["source"] for citation in data["citations"]}
    sources = [
        TracedSource(
            data=source,
            anchor=f"source-{source['n']}",
            href=_document(source, answer, principal),
            section=section_of(source),
            excerpt=excerpt_of(source),
            facts=describe_source(source),
            cited=source["n"] in cited,
        )
        for source in data["sources"]
    ]
    links = {
        source.data["n"]: CitationLink(
            f"#{source.anchor}",
            _("Source %(n)d: %(title)s") % {"n": source.data["n"], "title": source.data["title"]},
        )
        for source in sources
    }
    return ShownAnswer(
        answer=answer,
        data=data,
        html=render_answer(data["answer"], data["citations"], links=links),
        sources=sources,
        confidence=describe_confidence(data["confidence"]),
        withheld=bool(data.get("withheld")),
    )


def _document(source: dict[str, Any], answer: Answer, principal: Principal) -> str:
    """To the passage on our own page; a visiting superuser, who is no member, sees the document in the admin."""
    if is_visiting(principal):
        return reverse("admin:knowledge_document_change", args=[source["document_id"]])
    return source_href(source, answer=str(answer.pk))


def trace_answer(answer: Answer, principal: Principal) -> Trace:
    """How an answer came about."""
    shown = show_answer(answer, principal)
    calls = UsageRecord.objects.filter(
        request_id=answer.pk,
        created_at__gte=answer.created_at - CALLS_WITHIN,
        created_at__lte=answer.created_at + CALLS_WITHIN,
    ).order_by("created_at")[:CALLS_SHOWN]
    hidden = len(answer.sources) - len(shown.sources)
    return Trace(shown=shown, stages=_stages(answer.timings), calls=list(calls), hidden=hidden)


def _stages(timings: dict[str, float]) -> list[Stage]:
    """In the order of a question's journey; what is unknown to it comes last."""
    names = {
        "prepare": _("Prepare"),
        "rewrite": _("Rewrite the question"),
        "cache": _("Look in the cache"),
        "embed": _("Embed the question"),
        "retrieve": _("Search"),
        "first_byte": _("First word of the model"),
        "generate": _("Generate, to the last word"),
    }
    longest = max(timings.values(), default=0.0) or 1.0
    known = [name for name in names if name in timings]
    return [
        Stage(names.get(name, name), timings[name], round(100 * timings[name] / longest))
        for name in (*known, *(name for name in timings if name not in names))
    ]
