"""Questions to begin with: what the tenant's members ask often, or examples from one's own documents."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import F
from django.utils import timezone
from django.utils.translation import gettext as _

from knowledge.answering.cache import normalise_question
from knowledge.answering.record import readable_documents
from knowledge.models import Answer, Collection, Document
from tenants.models import Membership

SUGGESTIONS = 5
EXAMPLES = 3
DAYS = 30
# The newest answers alone are looked at, so that the page costs the same in a tenant of a million answers.
NEWEST = 2000
CANDIDATES = 30
ROWS_PER_CANDIDATE = 20


@dataclass
class _Group:
    """A question that was asked more than once, whatever its case and spacing."""

    text: str
    members: set[int] = field(default_factory=set)
    answers: list[UUID] = field(default_factory=list)


def frequent_questions(*, membership: Membership, now: datetime | None = None) -> list[str]:
    """Questions of the last 30 days that at least two members asked, most frequent first.

    Those answers count alone whose every document this member may read at this moment: what a question is about could
    be in its words.
    """
    since = (now or timezone.now()) - timedelta(days=DAYS)
    rows: Any = (
        Answer.objects.filter(tenant_id=membership.tenant_id, answered=True, created_at__gte=since)
        # A follow-up that was completed from its conversation means nothing without it.
        .filter(standalone_question=F("question"))
        .order_by("-created_at")
        .values_list("pk", "question", "user_id")[:NEWEST]
    )
    groups: dict[str, _Group] = {}
    for pk, question, user_id in rows:
        group = groups.setdefault(normalise_question(question), _Group(" ".join(question.split())))
        group.answers.append(pk)
        if user_id is not None:
            group.members.add(user_id)
    asked_by_two = [group for group in groups.values() if len(group.members) > 1]
    candidates = sorted(asked_by_two, key=lambda group: -len(group.answers))[:CANDIDATES]
    askers = _askers_by_readable_answers(candidates, membership)
    return [group.text for group in candidates if _members(group, askers) > 1][:SUGGESTIONS]


def _askers_by_readable_answers(candidates: list[_Group], membership: Membership) -> dict[UUID, int]:
    """Who asked, for each of the candidates' latest answers that rest on what the member may read."""
    looked_at = [pk for group in candidates for pk in group.answers[:ROWS_PER_CANDIDATE]]
    if not looked_at:
        return {}
    answers = Answer.objects.filter(pk__in=looked_at, user__isnull=False)
    rows = list(answers.only("user_id", "document_ids", "depends_on", "tenant_id"))
    readable = readable_documents(rows, membership=membership)
    return {row.pk: row.user_id for row in rows if readable >= row.needed_ids}


def _members(group: _Group, askers: dict[UUID, int]) -> int:
    return len({askers[pk] for pk in group.answers if pk in askers})


def example_questions(membership: Membership) -> list[str]:
    """Questions that this member's own documents answer: one for each of a few collections, by its kind."""
    kind = Collection.ContentClass
    wording = {
        kind.TROUBLESHOOTING: _("What are the first steps in “%(title)s”?"),
        kind.REFERENCE: _("Which rules does “%(title)s” set?"),
        kind.DOCUMENTATION: _("What was decided in “%(title)s”, and why?"),
        kind.CONFIGURATION: _("Which interfaces does “%(title)s” configure?"),
        kind.STATE: _("What needs attention in “%(title)s”?"),
    }
    largest = (
        Document.objects.visible_to(membership)
        .filter(status=Document.Status.INDEXED, chunk_count__gt=0)
        .order_by("collection_id", "-chunk_count", "id")
        .distinct("collection_id")
        .values_list("collection__content_class", "title")
    )
    by_kind = dict(sorted(largest, reverse=True))
    order = [kind.TROUBLESHOOTING, kind.REFERENCE, kind.DOCUMENTATION, kind.CONFIGURATION, kind.STATE]
    return [wording[k] % {"title": by_kind[k]} for k in order if k in by_kind][:EXAMPLES]
