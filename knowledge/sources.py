"""Sources and their schedules."""

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django_celery_beat.models import CrontabSchedule, PeriodicTask, PeriodicTasks

from knowledge.ingestion.following import follow_source
from knowledge.ingestion.jobs import start_sync_job
from knowledge.ingestion.source_tags import effective_tags, lock_source
from knowledge.ingestion.sources.base import SourceError
from knowledge.ingestion.sources.connect import KINDS
from knowledge.ingestion.sources.folder import resolve_folder
from knowledge.ingestion.sources.kinds import (
    Options,
    SourceKind,
    open_credentials,
    read_model,
    seal_credentials,
)
from knowledge.ingestion.storage import delete_original
from knowledge.models import Collection, Corpus, Document, Job, Source
from knowledge.models.documents import SOURCE_PLACE_OPTIONS
from knowledge.schedules import read_crontab, read_zone, wrong
from knowledge.source_checks import ask_source
from knowledge.webhooks.callbacks import wish_callback
from ragsite.core.problems import Problem
from tenants.access import Principal
from tenants.audit import record_by
from tenants.people import invalid
from tenants.scope import atomic, on_commit

TASK = "knowledge.sync_source"
CHECK_SECONDS = 10.0


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


def fill_source(*, source: Source, changes: Mapping[str, Any], principal: Principal | None = None) -> str:
    """Sets what was changed and holds it against what its kind asks for; nothing is stored.

    Args:
        changes: fields of the row. ``options`` are laid over the stored ones, ``None`` sets one back. ``credentials``,
            when given, take the place of all that are stored; empty removes them.

    Returns:
        What became of the credentials: ``given``, ``removed``, ``dropped`` (they were for another place), or nothing.

    Raises:
        Problem: 400 that names the field.
    """
    changes = dict(changes)
    stored = None if source._state.adding else Source.objects.filter(pk=source.pk).defer("state").first()
    if stored is not None and changes.get("kind", stored.kind) != stored.kind:
        raise wrong("kind", "A source keeps its kind: make a new one, and delete this one.")
    if stored is not None:
        # Place and secrets from one reading: somebody may have moved it since ``source`` was read.
        source.credentials = stored.credentials
    given = changes.pop("options", None) or {}
    had_credentials, credentials = "credentials" in changes, changes.pop("credentials", None)
    for name, value in changes.items():
        setattr(source, name, value)
    kind = KINDS.get(source.kind)
    if kind is None:
        raise wrong("kind", f"Sources of this kind cannot be made here: choose one of {', '.join(KINDS)}.")
    if not isinstance(given, Mapping):
        raise wrong("options", "Give an object of names and values.")
    known = kind.options.model_fields
    before = {name: value for name, value in (stored.options if stored else {}).items() if name in known}
    merged = {name: value for name, value in {**before, **given}.items() if value is not None}
    options = read_model(kind.options, "options", merged, kind=kind.title)
    source.options = options.model_dump(mode="json")
    if principal is not None and (stored is None or stored.path != source.path):
        # Whoever is no operator names a folder below the allowed root, whatever stood there before.
        source.trusted = False
    _read_place(source, kind, options)
    if source.time_zone:
        read_zone(source.time_zone)
    try:
        exclude = [name for name, unset in (("name", not source.name), ("path", not kind.place)) if unset]
        # What it remembers may be megabytes, and is nothing that anybody typed.
        source.full_clean(validate_unique=False, validate_constraints=False, exclude=[*exclude, "state"])
    except ValidationError as error:
        raise invalid(error) from None
    moved = stored is not None and _whose_secrets(kind, stored) != kind.secrets_for(source.path, options)
    if moved:
        source.state = {}  # what was remembered is of another place
    return _set_credentials(source, kind, moved=moved, had=had_credentials, given=credentials)


def _read_place(source: Source, kind: SourceKind, options: Options) -> None:
    if kind.place and not source.path.strip():
        raise wrong(
            "path",
            "This field may not be blank." + (f" For instance {kind.example}." if kind.example else ""),
        )
    if not source.trusted:
        try:
            source.path = kind.read_place(source.path, options)
        except SourceError as error:
            raise wrong("path", str(error)) from None


def _whose_secrets(kind: SourceKind, source: Source) -> str:
    return kind.secrets_for(source.path, kind.options.model_construct(**source.options))


def _set_credentials(source: Source, kind: SourceKind, *, moved: bool, had: bool, given: Any) -> str:
    """Secrets go only where they were given for: those of another place are dropped."""
    done = ""
    if had:
        credentials = read_model(kind.credentials, "credentials", given or {}, kind=kind.title)
        done = "given" if credentials.values() else ("removed" if source.credentials else "")
        source.credentials = seal_credentials(credentials)
    elif moved and source.credentials:
        source.credentials, done = "", "dropped"
    if had or moved or source._state.adding:
        field, reason = kind.fit_together(source.path, open_credentials(source, kind.credentials))
        if field:
            if done == "dropped":
                reason += " The stored credentials were for another place: enter those of this one."
            raise wrong(f"credentials.{field}", reason)
    return done


def save_source(*, source: Source, changes: Mapping[str, Any], principal: Principal | None = None) -> Source:
    """Creates or changes a source and its schedule. ``changes``: as ``fill_source`` takes them.

    Its documents have its tags and its collection from the same transaction on.

    Raises:
        Problem: 400 for a place, option, credential, schedule or time zone that cannot be used; 409 for a name or place
            that is taken.
    """
    creating = source._state.adding
    credentials = fill_source(source=source, changes=changes, principal=principal)
    source.name = source.name or f"{source.path or 'documents'} → {source.collection.slug}"[:200]
    with atomic():
        stored = None if creating else lock_source(source.pk)
        others = Source.objects.exclude(pk=source.pk).defer("state")
        if others.filter(name=source.name).exists():
            raise Problem(409, "conflict", f"A source named {source.name} exists already.")
        same = others.filter(kind=source.kind, path=source.path, collection=source.collection)
        if any(_place_options(other) == _place_options(source) for other in same):
            what = "folder" if source.kind == Source.Kind.FOLDER else "place"
            raise Problem(409, "conflict", f"This {what} is a source of this collection already.")
        if creating:
            source.save()
        else:
            # A sync that runs meanwhile writes what it remembers; that is not set back unless the place is another.
            kept = {"last_synced_at", "created_at", "hook_secret"}
            if "state" in source.get_deferred_fields() or source.state:
                kept.add("state")
            source.save(update_fields=[f.name for f in source._meta.fields if f.name not in {"id", *kept}])
        if stored is not None:
            follow_source(source=source, before=effective_tags(stored))
        set_schedule(source=source)
        detail = {
            "name": source.name,
            "kind": source.kind,
            "path": source.path,
            "tags": source.tags,
            "schedule": source.schedule,
            "enabled": source.enabled,
        }
        if credentials:
            detail["credentials"] = credentials
        record_by(principal, "source.create" if creating else "source.change", source, detail)
    return source


def _place_options(source: Source) -> list[str]:
    return [str(source.options.get(name) or "") for name in SOURCE_PLACE_OPTIONS]


def check_source(*, source: Source) -> str:
    """Asks a source's place once, with its credentials, and says in a sentence what is there; takes at most 10 s.

    Raises:
        SourceError: what is wrong, and what to do.
    """
    known = source.state  # read here, and not in the other thread
    words, learnt = ask_source(source=source, seconds=CHECK_SECONDS)
    new = {name: value for name, value in learnt.items() if name not in known}
    if new and not source._state.adding:
        # A host key that was seen now is the one that the first sync expects.
        with atomic():
            row = Source.objects.select_for_update().filter(pk=source.pk).first()
            if row is not None and row.path == source.path:
                row.state = new | row.state
                row.save(update_fields=["state"])
    return words


def try_source(*, source: Source, principal: Principal | None = None) -> tuple[bool, str]:
    """``check_source`` of a stored source, audited: whether it can be reached, and what is there or wrong."""
    try:
        ok, words = True, check_source(source=source)
    except SourceError as error:
        ok, words = False, str(error)
    record_by(principal, "source.check", source, {"name": source.name, "ok": ok})
    return ok, words


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
        lock_source(source.pk)
        tenant_id = source.tenant_id
        files = list(Document.objects.filter(source=source).values_list("stored_name", "pending_name"))
        record_by(principal, "source.delete", source, {"name": source.name, "documents": len(files)})
        source_id, kind = source.pk, KINDS.get(source.kind)
        source.delete()
        Corpus.raise_version(without_trace=True)

        def remove_originals() -> None:
            for name in chain.from_iterable(files):
                delete_original(tenant_id=tenant_id, stored_name=name)
            if kind is not None:
                kind.forget(tenant_id, source_id)

        on_commit(remove_originals)


def start_sync(
    *,
    source: Source,
    principal: Principal | None = None,
    follow: bool = False,
    callback_url: str = "",
) -> Job:
    """A job that brings the source up to date; the one that waits or runs already, if there is one.

    Args:
        follow: the source has just changed, says a webhook: a job that runs already is followed by another.
        callback_url: told when it has ended; checked by ``check_callback``.

    Raises:
        Problem: 409 where documents are pushed, or when the job that runs already tells somebody else.
    """
    if source.kind == Source.Kind.PUSH:
        raise Problem(
            409, "pushed", "Documents are pushed to this source by webhook: there is nothing to fetch."
        )
    with atomic():
        user = principal.membership.user if principal else None
        job, is_new = start_sync_job(source=source, user=user, follow=follow, callback_url=callback_url)
        if is_new:
            record_by(principal, "source.sync", source, {"name": source.name})
        elif callback_url:
            wish_callback(job=job, url=callback_url)
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
