"""The audit log: narrowed, read and exported."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.utils import timezone
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET

from ragsite.core.problems import FieldProblem, Problem
from tenants.access import Principal, audit_events_visible_to
from tenants.api.audit import AuditEventShape
from tenants.audit import record_by
from tenants.audit_log import Asked, Found, read_log, stream_log
from tenants.audit_words import ACTIONS, facts_of, words_of
from tenants.exports import csv_response, lines_response
from tenants.models import Ability, AuditEvent, Membership
from tenants.pages import is_part, member_page, render_part, shell_context
from tenants.periods import day_start, read_day
from tenants.rest import dump_json

TEMPLATE = "tenants/audit.html"
SUGGESTED = 200
SHOWN = 300  # characters of a fact; the whole of it is in the detail
HEADER = (
    *(
        "at",
        "action",
        "actor",
        "role",
        "method",
        "target_type",
        "target_id",
        "address",
        "request_id",
        "detail",
    ),
)


def _asked(request: HttpRequest) -> Asked:
    def text(name: str) -> str:
        return request.GET.get(name, "").replace("\0", "").strip()[:150]

    first, last = read_day(request, "from"), read_day(request, "to")
    if first and last and first > last:
        words = _("The period ends before it begins.")
        raise Problem(400, "invalid", words, errors=[FieldProblem("to", words)])
    return Asked(
        action=text("action"),
        actor=text("actor"),
        target=text("target"),
        text=text("text"),
        start=day_start(first) if first else None,
        end=day_start(last + timedelta(days=1)) if last else None,
    )


def _context(request: HttpRequest, principal: Principal, asked: Asked, found: Found) -> dict[str, Any]:
    members = Membership.objects.order_by("user__username").values_list("user__username", flat=True)
    kept = {name: request.GET[name] for name in _FIELDS if request.GET.get(name)}
    return shell_context(principal) | {
        "here": "audit",
        "asked": asked,
        "given": {name: request.GET.get(name, "") for name in _FIELDS},
        "events": [
            {"event": one, "words": words_of(one), "facts": (facts := facts_of(one)), "raw": _raw(one, facts)}
            for one in found.rows
        ],
        "found": found,
        "begun": bool(request.GET.get("after")),
        "query": urlencode(kept),
        "older": urlencode({**kept, "after": found.next}),
        "actions": ACTIONS,
        "kinds": sorted({action.partition(".")[0] + "." for action in ACTIONS}),
        "people": list(members[:SUGGESTED]),
        "today": timezone.localdate(),
    }


def _raw(event: AuditEvent, facts: list[tuple[str, str]]) -> str:
    """The detail as it is stored, where its facts do not tell all of it."""
    is_whole = "before" not in event.detail and all(len(text) <= SHOWN for _name, text in facts)
    return "" if is_whole else dump_json(event.detail)


_FIELDS = ("action", "actor", "target", "text", "from", "to")


@require_GET
@member_page
def audit(request: HttpRequest, principal: Principal) -> HttpResponse:
    """What happened in the tenant, newest first."""
    principal.require(Ability.MANAGE.value)
    try:
        asked = _asked(request)
        reader, after = principal.membership, request.GET.get("after", "")
        found = read_log(audit_events_visible_to(reader), asked, reader=reader, after=after)
    except Problem as problem:
        if is_part(request):
            raise
        context = _context(request, principal, Asked(), Found(rows=[], next=""))
        return render_part(request, TEMPLATE, "list", context, problem=problem)
    return render_part(request, TEMPLATE, "list", _context(request, principal, asked, found))


@require_GET
@member_page
def audit_export(request: HttpRequest, principal: Principal) -> StreamingHttpResponse:
    """The log as CSV or JSON lines, narrowed like the page; exporting is itself in the log."""
    principal.require(Ability.MANAGE.value)
    asked = _asked(request)
    form = request.GET.get("format", "csv")
    if form not in ("csv", "jsonl"):
        raise Problem(400, "invalid", _("Export as csv or jsonl."))
    record_by(principal, "audit.export", None, {"format": form, **asked.facts()})
    reader = principal.membership
    events = stream_log(audit_events_visible_to(reader), asked, reader=reader)
    slug = principal.membership.tenant.slug
    name = f"{slug}-audit-{timezone.localdate().isoformat()}.{form}"
    if form == "csv":
        return csv_response(name=name, header=HEADER, rows=_cells(events))
    lines = (dump_json(AuditEventShape(event).data) + "\n" for event in events)
    return lines_response(name=name, content_type="application/x-ndjson; charset=utf-8", lines=lines)


def _cells(events: Iterator[AuditEvent]) -> Iterator[list[Any]]:
    for one in events:
        yield [
            one.at,
            one.action,
            one.actor_name,
            one.role_name,
            one.method,
            one.target_type,
            one.target_id,
            one.address,
            one.request_id,
            dump_json(one.detail),
        ]
