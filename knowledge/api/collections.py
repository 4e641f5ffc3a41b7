"""Collections, sources, and the jobs that index."""

from typing import Any
from uuid import UUID

from django.urls import reverse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from redis.exceptions import RedisError
from rest_framework.request import Request
from rest_framework.response import Response

from knowledge.access import access_collection, access_collections, access_document, access_job, access_source
from knowledge.answering.batch import present_batch
from knowledge.answering.layers import cache_stats, clear_cache
from knowledge.answering.warm import start_warming
from knowledge.api.question_shapes import WarmForm, WarmShape
from knowledge.api.shapes import (
    CollectionForm,
    CollectionShape,
    ExcludedShape,
    IngestForm,
    JobShape,
    ReindexForm,
    SourceCheckShape,
    SourceForm,
    SourceRowShape,
    StartedShape,
    SyncForm,
    job_object,
)
from knowledge.documents import default_collection, delete_collection, save_collection
from knowledge.exclusions import excluded_items, take_again
from knowledge.ingestion.jobs import cancel_job, create_job
from knowledge.models import Collection, Job, Source
from knowledge.sources import delete_source, save_source, source_of_folder, start_sync, try_source
from knowledge.tags import check_tags
from knowledge.webhooks.callbacks import check_callback
from ragsite.core.problems import Problem
from tenants.audit import record_by
from tenants.models import Ability
from tenants.rest import TenantView, list_schema
from tenants.scope import atomic

ASK, UPLOAD, MANAGE = Ability.ASK.value, Ability.UPLOAD.value, Ability.MANAGE.value


def started(job: Job) -> Response:
    """202 for work that a job does."""
    url = reverse("task", args=[job.pk])
    body = {"task_id": job.pk, "status": "started", "status_url": url}
    return Response(body, status=202, headers={"Location": url})


def pick_collection(view: TenantView, name: str | None) -> Collection:
    """The collection of a body, by slug or id; the default one when none is named."""
    if not name:
        return default_collection()
    return access_collections(view.principal, [name])[0]


class CollectionsView(TenantView):
    abilities = {"GET": ASK, "POST": MANAGE}

    @list_schema(CollectionShape, operation_id="collections_list", tags=["documents"])
    def get(self, request: Request) -> Response:
        """The tenant's collections: all of them for those who upload or manage, else those in which I read something."""
        return self.page(Collection.objects.visible_to(self.principal), CollectionShape)

    @extend_schema(
        request=CollectionForm,
        responses={201: CollectionShape},
        operation_id="collections_create",
        tags=["documents"],
    )
    def post(self, request: Request) -> Response:
        """Add a collection."""
        collection = save_collection(
            collection=Collection(), changes=self.parse(CollectionForm), principal=self.principal
        )
        return Response(CollectionShape(collection).data, status=201)


class CollectionView(TenantView):
    abilities = {"GET": ASK, "PATCH": MANAGE, "DELETE": MANAGE}

    @extend_schema(responses=CollectionShape, operation_id="collections_read", tags=["documents"])
    def get(self, request: Request, id: UUID) -> Response:
        """One collection."""
        return Response(CollectionShape(access_collection(self.principal, id)).data)

    @extend_schema(
        request=CollectionForm,
        responses=CollectionShape,
        operation_id="collections_change",
        tags=["documents"],
    )
    def patch(self, request: Request, id: UUID) -> Response:
        """Change a collection; its default tags hold for documents that come later, and for sources without tags."""
        collection = access_collection(self.principal, id)
        changes = self.parse(CollectionForm, partial=True)
        save_collection(collection=collection, changes=changes, principal=self.principal)
        return Response(CollectionShape(collection).data)

    @extend_schema(responses={204: None}, operation_id="collections_delete", tags=["documents"])
    def delete(self, request: Request, id: UUID) -> Response:
        """Remove an empty collection."""
        collection = access_collection(self.principal, id)
        delete_collection(collection=collection, principal=self.principal)
        return Response(status=204)


class SourcesView(TenantView):
    abilities = {"GET": MANAGE, "POST": MANAGE}

    @list_schema(SourceRowShape, operation_id="sources_list", tags=["sources"])
    def get(self, request: Request) -> Response:
        """Where documents come from."""
        return self.page(Source.objects.select_related("collection").defer("state"), SourceRowShape)

    @extend_schema(
        request=SourceForm, responses={201: SourceRowShape}, operation_id="sources_create", tags=["sources"]
    )
    def post(self, request: Request) -> Response:
        """Add a source. `schedule` is a crontab line; empty: only by hand. What `options` and `credentials` may hold
        depends on the `kind`."""
        form = self.parse(SourceForm)
        form["collection"] = pick_collection(self, form.get("collection"))
        source = save_source(source=Source(), changes=form, principal=self.principal)
        return Response(SourceRowShape(source).data, status=201)


class SourceView(TenantView):
    abilities = {"GET": MANAGE, "PATCH": MANAGE, "DELETE": MANAGE}

    @extend_schema(responses=SourceRowShape, operation_id="sources_read", tags=["sources"])
    def get(self, request: Request, id: UUID) -> Response:
        """One source."""
        return Response(SourceRowShape(access_source(self.principal.membership, id)).data)

    @extend_schema(
        request=SourceForm, responses=SourceRowShape, operation_id="sources_change", tags=["sources"]
    )
    def patch(self, request: Request, id: UUID) -> Response:
        """Change a source or its schedule."""
        source = access_source(self.principal.membership, id)
        form = self.parse(SourceForm, partial=True)
        if "collection" in form:
            form["collection"] = pick_collection(self, form["collection"])
        return Response(
            SourceRowShape(save_source(source=source, changes=form, principal=self.principal)).data
        )

    @extend_schema(responses={204: None}, operation_id="sources_delete", tags=["sources"])
    def delete(self, request: Request, id: UUID) -> Response:
        """Remove a source with its documents, for good."""
        delete_source(source=access_source(self.principal.membership, id), principal=self.principal)
        return Response(status=204)


class SourceSyncView(TenantView):
    abilities = {"POST": MANAGE}

    @extend_schema(
        request=SyncForm, responses={202: StartedShape}, operation_id="sources_sync", tags=["sources"]
    )
    def post(self, request: Request, id: UUID) -> Response:
        """Bring a source up to date now."""
        source = access_source(self.principal.membership, id)
        url = self.parse(SyncForm).get("callback_url", "")
        check_callback(url, source=source)
        return started(start_sync(source=source, principal=self.principal, callback_url=url))


class SourceCheckView(TenantView):
    abilities = {"POST": MANAGE}

    @extend_schema(
        request=None, responses={200: SourceCheckShape}, operation_id="sources_check", tags=["sources"]
    )
    def post(self, request: Request, id: UUID) -> Response:
        """Try whether a source can be reached with its credentials, for at most 10 seconds; nothing is fetched."""
        source = access_source(self.principal.membership, id)
        ok, detail = try_source(source=source, principal=self.principal)
        return Response(SourceCheckShape({"ok": ok, "detail": detail}).data)


class SourceExcludedView(TenantView):
    abilities = {"GET": MANAGE, "DELETE": MANAGE}

    @list_schema(ExcludedShape, operation_id="sources_excluded", tags=["sources"])
    def get(self, request: Request, id: UUID) -> Response:
        """What a source passes over because somebody deleted it here."""
        return self.page(excluded_items(access_source(self.principal.membership, id)), ExcludedShape)

    @extend_schema(
        responses={204: None},
        operation_id="sources_take_again",
        tags=["sources"],
        parameters=[OpenApiParameter("uri", str, description="Of one document; left out: all of them.")],
    )
    def delete(self, request: Request, id: UUID) -> Response:
        """Let a source have documents again that were deleted here; they come with its next sync."""
        source = access_source(self.principal.membership, id)
        uri = request.query_params.get("uri")
        take_again(source=source, uri=uri and uri.replace("\0", ""), principal=self.principal)
        return Response(status=204)


class IngestView(TenantView):
    abilities = {"POST": MANAGE}

    @extend_schema(request=IngestForm, responses={202: StartedShape}, operation_id="ingest", tags=["sources"])
    def post(self, request: Request) -> Response:
        """Take in a source, or a folder below the server's allowed root (which becomes a source)."""
        form = self.parse(IngestForm)
        url = form.get("callback_url", "")
        if form.get("source"):
            source = access_source(self.principal.membership, form["source"])
        else:
            source = source_of_folder(
                directory=form["directory"],
                collection=pick_collection(self, form.get("collection")),
                tags=check_tags(tags=form.get("tags", []), principal=None),
                principal=self.principal,
            )
        check_callback(url, source=source)
        return started(start_sync(source=source, principal=self.principal, callback_url=url))


class ReindexView(TenantView):
    abilities = {"POST": MANAGE}

    @extend_schema(
        request=ReindexForm, responses={202: StartedShape}, operation_id="reindex", tags=["sources"]
    )
    def post(self, request: Request) -> Response:
        """Index again: a collection, a source, a document, or everything."""
        form = self.parse(ReindexForm)
        membership = self.principal.membership
        about: dict[str, Any] = {}
        if name := form.get("collection"):
            about["collection"] = access_collections(self.principal, [name])[0]
        if pk := form.get("source"):
            about["source"] = access_source(membership, pk)
        if pk := form.get("document"):
            about["document"] = access_document(membership, pk)
        with atomic():
            job = create_job(kind=Job.Kind.REINDEX, user=membership.user, **about)
            # Of one document it is the document's, whose title not everybody may read.
            told = {name: str(row) for name, row in about.items()} | {"task": str(job.pk)}
            record_by(self.principal, "index.rebuild", about.get("document", job), told)
        return started(job)


class TasksView(TenantView):
    abilities = {"GET": UPLOAD}

    @list_schema(
        JobShape,
        operation_id="tasks_list",
        tags=["sources"],
        parameters=[OpenApiParameter("state", str, enum=list(Job.State.values))],
    )
    def get(self, request: Request) -> Response:
        """My jobs, or everyone's for those who manage; latest first."""
        jobs = Job.objects.visible_to(self.principal)
        if state := request.query_params.get("state"):
            jobs = jobs.filter(state=state)
        return self.page(jobs, JobRow)


class JobRow:
    """What ``page`` needs of a serializer, for rows that are told by ``job_object``."""

    def __init__(self, rows: list[Job], **_: Any) -> None:
        self.data = [job_object(row) for row in rows]


class TaskView(TenantView):
    """One's own jobs: whoever may begin one may end it. To follow it no ability is needed, but for the answers."""

    @extend_schema(responses=JobShape, operation_id="tasks_read", tags=["sources"])
    def get(self, request: Request, id: UUID) -> Response:
        """Where a job stands."""
        job = access_job(self.principal, id)
        body = job_object(job)
        if job.kind == Job.Kind.QUESTIONS:
            body["result"] = present_batch(job, principal=self.principal)
        return Response(body)

    @extend_schema(responses={200: JobShape}, operation_id="tasks_cancel", tags=["sources"])
    def delete(self, request: Request, id: UUID) -> Response:
        """Cancel a job that waits or runs; what it has done so far stays."""
        job = access_job(self.principal, id)
        if not self.principal.may(MANAGE):
            self.principal.require(ASK if job.kind == Job.Kind.QUESTIONS else UPLOAD)
        job = cancel_job(job=job)
        record_by(self.principal, "task.cancel", job)
        return Response(job_object(job))


class CacheStatsView(TenantView):
    abilities = {"GET": MANAGE}

    @extend_schema(responses={200: dict}, operation_id="cache_stats", tags=["cache"])
    def get(self, request: Request) -> Response:
        """Hits, misses, rate and bytes of each cache layer, of this tenant alone."""
        try:
            return Response(cache_stats(tenant_id=self.principal.membership.tenant_id))
        except RedisError:
            raise _cache_away() from None


class CacheView(TenantView):
    abilities = {"DELETE": MANAGE}

    @extend_schema(responses={200: dict}, operation_id="cache_clear", tags=["cache"])
    def delete(self, request: Request) -> Response:
        """Forget the tenant's cached answers."""
        principal = self.principal
        try:
            removed = clear_cache(tenant_id=principal.membership.tenant_id)
        except RedisError:
            raise _cache_away() from None
        record_by(principal, "cache.clear", principal.membership.tenant, {"entries": removed})
        return Response({"removed": removed})


class CacheWarmView(TenantView):
    abilities = {"POST": MANAGE}

    @extend_schema(request=WarmForm, responses={202: WarmShape}, operation_id="cache_warm", tags=["cache"])
    def post(self, request: Request) -> Response:
        """Have the questions that are asked most answered before they are asked again, as the roles that asked them."""
        most = self.parse(WarmForm)["most"]
        questions = start_warming(most=most)
        record_by(self.principal, "cache.warm", self.principal.membership.tenant, {"questions": questions})
        return Response({"status": "started", "questions": questions}, status=202)


def _cache_away() -> Problem:
    return Problem(
        503,
        "cache-unavailable",
        "The cache does not answer; questions are answered without it. Try again in 30 seconds.",
        headers={"Retry-After": "30"},
    )
