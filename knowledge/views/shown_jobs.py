"""Jobs as pages show them: about what, how far, what went wrong and what can be done about it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from knowledge.models import Collection, Document, Job, Source
from tenants.access import Principal
from tenants.models import Ability, User

MANAGE = Ability.MANAGE.value

STEPS = {
    "waiting": gettext_lazy("waiting"),
    "waiting to try again": gettext_lazy("waiting to try again"),
    "listing": gettext_lazy("listing"),
    "reading": gettext_lazy("reading"),
    "chunking": gettext_lazy("cutting into passages"),
    "embedding": gettext_lazy("indexing"),
    "indexing again": gettext_lazy("indexing again"),
    "deleting what is gone": gettext_lazy("deleting what is gone"),
}
TONES = {
    Job.State.PENDING: "busy",
    Job.State.PROGRESS: "busy",
    Job.State.SUCCESS: "good",
    Job.State.FAILURE: "bad",
    Job.State.CANCELLED: "warn",
}


@dataclass(frozen=True)
class ShownJob:
    """A job, and what a row says of it.

    Attributes:
        kind: what is done; ``about`` is done to, with ``href`` where that can be opened.
        state: a word, in the colour of ``tone``.
        who: the user's name, or what else began it.
        took: how long it ran, or has been running.
        document: of a document's job, if the reader may see it.
    """

    job: Job
    kind: str
    about: str
    href: str
    state: str
    tone: str
    who: str
    took: str
    may_cancel: bool
    may_retry: bool
    document: Document | None

    @property
    def at(self) -> str:
        """The document that it is at, of several."""
        job = self.job
        return job.step if job.state == Job.State.PROGRESS and job.step not in STEPS else ""

    @property
    def counts(self) -> str:
        """What became of the documents, in one line."""
        job = self.job
        if job.kind == Job.Kind.DOCUMENT and not job.failed:
            return ""
        parts = (
            (job.changed, _("answered") if job.kind == Job.Kind.QUESTIONS else _("indexed")),
            (job.unchanged, _("unchanged")),
            (job.deleted, _("deleted")),
            (job.failed, _("failed")),
            (job.skipped, _("skipped")),
        )
        return ", ".join(f"{n} {words}" for n, words in parts if n)


def show_jobs(jobs: Sequence[Job], principal: Principal) -> list[ShownJob]:
    """Rows, with the names of what they are about as far as the member may know them; four queries at most."""
    membership = principal.membership
    documents = _by_id(
        Document.objects.visible_to(membership).only(
            "title", "uri", "pending_uri", "chunk_count", "note", "tenant_id"
        ),
        (job.document_id for job in jobs),
    )
    sources = _by_id(Source.objects.only("name", "tenant_id"), (job.source_id for job in jobs))
    collections = _by_id(Collection.objects.only("name", "tenant_id"), (job.collection_id for job in jobs))
    users = _by_id(User.objects.only("username"), (job.user_id for job in jobs))
    return [
        _show(
            job,
            principal,
            document=documents.get(job.document_id),
            source=sources.get(job.source_id),
            collection=collections.get(job.collection_id),
            user=users.get(job.user_id),
        )
        for job in jobs
    ]


def _by_id(rows: Any, ids: Iterable[Any]) -> dict[Any, Any]:
    wanted = {pk for pk in ids if pk is not None}
    return {row.pk: row for row in rows.filter(pk__in=wanted)} if wanted else {}


def _show(
    job: Job,
    principal: Principal,
    *,
    document: Document | None,
    source: Source | None,
    collection: Collection | None,
    user: User | None,
) -> ShownJob:
    manages = principal.may(MANAGE)
    about, href = "", ""
    if job.document_id:
        about = (document.pending_uri or document.uri) if document else _("a document you may not see")
        href = reverse("document-manage", args=[job.document_id]) if document else ""
    elif source is not None:
        about, href = source.name, reverse("source-page", args=[source.pk]) if manages else ""
    elif collection is not None:
        about, href = collection.name, reverse("collection-page", args=[collection.pk]) if manages else ""
    elif job.kind == Job.Kind.REINDEX:
        about = _("every document")
    elif job.kind == Job.Kind.QUESTIONS:
        about = _("%(n)d questions") % {"n": len(job.request["questions"])}
    kinds = {
        Job.Kind.DOCUMENT: _("Index"),
        Job.Kind.SYNC: _("Synchronise"),
        Job.Kind.REINDEX: _("Index again"),
        Job.Kind.QUESTIONS: _("Answer questions"),
    }
    return ShownJob(
        job=job,
        kind=kinds.get(Job.Kind(job.kind), job.kind),
        about=about,
        href=href,
        state=describe_state(job),
        tone="warn" if job.state == Job.State.SUCCESS and job.failed else TONES[Job.State(job.state)],
        who=user.username if user else _("schedule") if job.kind == Job.Kind.SYNC else _("system"),
        took=describe_duration(job),
        may_cancel=not job.is_finished and not job.cancel_requested,
        may_retry=may_retry(job, principal) and (document is not None or not job.document_id),
        document=document,
    )


def may_retry(job: Job, principal: Principal) -> bool:
    """Whether there is anything to do again, and the member may."""
    failed = job.state in (Job.State.FAILURE, Job.State.CANCELLED) or bool(job.failed)
    return job.is_finished and failed and (job.kind == Job.Kind.DOCUMENT or principal.may(MANAGE))


def describe_state(job: Job) -> str:
    """Where a job stands, in a word or two."""
    match job.state:
        case Job.State.SUCCESS:
            return _("done, with errors") if job.failed else _("done")
        case Job.State.FAILURE:
            return _("failed")
        case Job.State.CANCELLED:
            return _("cancelled")
    if job.cancel_requested:
        return _("stopping")
    if job.state == Job.State.PENDING:
        return _("waiting to try again") if job.not_before else _("waiting")
    return str(STEPS.get(job.step, _("indexing")))


def describe_duration(job: Job) -> str:
    """How long it ran; empty before it began."""
    if job.started_at is None:
        return ""
    return describe_seconds(((job.finished_at or timezone.now()) - job.started_at) / timedelta(seconds=1))


def describe_seconds(seconds: float) -> str:
    seconds = max(0, round(seconds))
    if seconds < 1:
        return _("under 1 s")
    if seconds < 60:
        return _("%(s)d s") % {"s": seconds}
    if seconds < 3600:
        return _("%(m)d min %(s)d s") % {"m": seconds // 60, "s": seconds % 60}
    return _("%(h)d h %(m)d min") % {"h": seconds // 3600, "m": seconds % 3600 // 60}
