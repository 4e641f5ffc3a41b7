"""Sources and their schedules."""

from itertools import chain
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django_celery_beat.models import CrontabSchedule, PeriodicTask, PeriodicTasks

from knowledge.ingestion.jobs import create_job
from knowledge.ingestion.sources.base import SourceError
from knowledge.ingestion.sources.folder import resolve_folder
from knowledge.ingestion.storage import delete_original
from knowledge.models import Collection, Corpus, Document, Job, Source
from knowledge.schedules import read_crontab, read_zone, wrong
from knowledge.webhooks.callbacks import wish_callback
from ragsite.core.problems import Problem
from tenants.access import Principal
from tenants.audit import record_by
from tenants.people import invalid
from tenants.scope import atomic, on_commit

TASK = "knowledge.sync_source"


def _crontab(*, line: str, time_zone: str) -> CrontabSchedule:
    """The stored schedule row of a crontab line.

    Raises:
        Problem: 400 that says what a line looks like.
    """
    row = read_crontab(line=line, time_zone=time_zone)
    values = {field.name: getattr(row, field.name) for field in row._meta.fields if field.name != "id"}
    found: CrontabSchedule = CrontabSchedule.objects.filter(**values).first() or row
    if found._state.adding:
        found.save()
    return found


def task_name(source: Source) -> str:
    """The name of a source's row in the beat schedule."""
    return f"sync source {source.pk}"


def set_schedule(*, source: Source) -> None:
    """Makes the beat schedule say what the source's row says."""
    if not source.schedule:
        PeriodicTask.objects.filter(name=task_name(source)).delete()
    else:
        import json

        PeriodicTask.objects.update_or_create(
            name=task_name(source),
            defaults={
                "task": TASK,
                "crontab": _crontab(line=source.schedule, time_zone=source.time_zone),
                "kwargs": json.dumps({"source_id": str(source.pk)}),
                "headers": json.dumps({"ragsite_tenant": str(source.tenant_id)}),
                "enabled": source.enabled,
                "description": f"{source.name} ({source.get_kind_display()})",
            },
        )
    PeriodicTasks.update_changed()


def save_source(*, source: Source, changes: dict[str, Any], principal: Principal | None = None) -> Source:
    """Creates or changes a source and its schedule.

    Raises:
        Problem: 400 for a folder, schedule or time zone that cannot be used; 409 for a name or place that is taken.
    """
    creating = source._state.adding
    for name, value in changes.items():
        setattr(source, name, value)
    if source.trusted and principal is not None and _has_moved(source):
        # Whoever is no operator names a folder below the allowed root, whatever stood there before.
        source.trusted = False
    if source.time_zone:
        read_zone(source.time_zone)
    try:
        source.full_clean(
            validate_unique=False, validate_constraints=False, exclude=["name"] if not source.name else []
        )
        if not source.trusted:
            resolve_folder(source.path)
    except ValidationError as error:
        raise invalid(error) from None
    except SourceError as error:
        raise wrong("path", str(error)) from None
    source.name = source.name or f"{source.path or 'documents'} → {source.collection.slug}"[:200]
    with atomic():
        others = Source.objects.exclude(pk=source.pk)
        if others.filter(name=source.name).exists():
            raise Problem(409, "conflict", f"A source named {source.name} exists already.")
        if others.filter(kind=source.kind, path=source.path, collection=source.collection).exists():
            raise Problem(409, "conflict", "This folder is a source of this collection already.")
        source.save()
        set_schedule(source=source)
        record_by(
            principal,
            "source.create" if creating else "source.change",
            source,
            {
                "name": source.name,
                "path": source.path,
                "tags": source.tags,
                "schedule": source.schedule,
                "enabled": source.enabled,
            },
        )
    return source


def _has_moved(source: Source) -> bool:
    return not Source.objects.filter(pk=source.pk, path=source.path).exists()


def set_source_enabled(*, source: Source, enabled: bool, principal: Principal | None = None) -> Source:
    """Lets a source follow its schedule, or not. Needs nothing of its folder, which may be gone."""
    with atomic():
        source.enabled = enabled
        source.save(update_fields=["enabled"])
        set_schedule(source=source)
        record_by(principal, "source.resume" if enabled else "source.pause", source, {"name": source.name})
    return source


def delete_source(*, source: Source, principal: Principal | None = None) -> None:
    """Removes a source with its documents and their originals, for good."""
    with atomic():
        PeriodicTask.objects.filter(name=task_name(source)).delete()
        PeriodicTasks.update_changed()
        tenant_id = source.tenant_id
        files = list(Document.objects.filter(source=source).values_list("stored_name", "pending_name"))
        record_by(principal, "source.delete", source, {"name": source.name, "documents": len(files)})
        source.delete()
        Corpus.raise_version(without_trace=True)

        def remove_originals() -> None:
            for name in chain.from_iterable(files):
                delete_original(tenant_id=tenant_id, stored_name=name)

        on_commit(remove_originals)


def start_sync(*, source: Source, principal: Principal | None = None, callback_url: str = "") -> Job:
    """A job that brings the source up to date; the one that waits or runs already, if there is one.

    Args:
        callback_url: told when it has ended; checked by ``check_callback``.

    Raises:
        Problem: 409 where documents are pushed, or when the job that runs already tells somebody else.
    """
    if source.kind == Source.Kind.PUSH:
        raise Problem(
            409, "pushed", "Documents are pushed to this source by webhook: there is nothing to fetch."
        )
    busy = Job.objects.filter(source=source, state__in=[Job.State.PENDING, Job.State.PROGRESS]).first()
    if busy is not None:
        found: Job = busy
        if callback_url:
            wish_callback(job=found, url=callback_url)
        return found
    with atomic():
        job = create_job(
            kind=Job.Kind.SYNC,
            source=source,
            user=principal.membership.user if principal else None,
            callback_url=callback_url,
        )
        record_by(principal, "source.sync", source, {"name": source.name})
    return job


def source_of_folder(
    *,
    directory: str,
    collection: Collection,
    tags: list[str],
    trusted: bool = False,
    principal: Principal | None = None,
) -> Source:
    """The source of a folder in a collection, made on its first use.

    Args:
        directory: relative to the allowed root or absolute below it; anywhere, absolute, when ``trusted``.

    Raises:
        Problem: 400 for a folder that cannot be used.
    """
    try:
        path = str(Path(directory).resolve() if trusted else resolve_folder(directory))
    except SourceError as error:
        raise wrong("directory", str(error)) from None
    source = Source.objects.filter(kind=Source.Kind.FOLDER, path=path, collection=collection).first()
    if source is None:
        name = f"{Path(path).name or 'root'} → {collection.slug}"
        if Source.objects.filter(name=name).exists():
            name = f"{path} → {collection.slug}"
        source = Source(name=name[:200], path=path, collection=collection, tags=tags, trusted=trusted)
        return save_source(source=source, changes={}, principal=principal)
    if tags and sorted(tags) != sorted(source.tags):
        source = save_source(source=source, changes={"tags": tags}, principal=principal)
    found_source: Source = source
    return found_source
