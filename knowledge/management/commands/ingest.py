"""``manage.py ingest PATH --tenant acme --collection runbooks --tags runbooks``"""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from knowledge.documents import Upload, add_document, default_collection, save_collection
from knowledge.embedding.factory import embedder
from knowledge.ingestion.run import run_claimed_job
from knowledge.models import Collection, Job
from knowledge.sources import source_of_folder, start_sync
from ragsite.core.problems import Problem
from tenants.command_line import find_tenant, whole_tenant


class Command(BaseCommand):
    help = "Indexes a file, or a folder and its sub-folders, here and now. Run again, it brings the folder up to date."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("path", type=Path)
        parser.add_argument("--tenant", required=True, help="the tenant's slug")
        parser.add_argument(
            "--collection", help="slug of a collection, made if it is not there; default: uploads"
        )
        parser.add_argument(
            "--tags", nargs="*", default=[], help="who may read it; none: the collection's, else admins only"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path = options["path"]
        if not path.exists():
            raise CommandError(f"There is no file or folder {path}.")
        tags = [tag for word in options["tags"] for tag in word.split(",") if tag]
        with whole_tenant(find_tenant(options["tenant"])):
            try:
                collection = self._collection(options["collection"])
                if path.is_dir():
                    source = source_of_folder(
                        directory=str(path), collection=collection, tags=tags, trusted=True
                    )
                    job = start_sync(source=source)
                else:
                    upload = Upload(filename=path.name, data=path.read_bytes())
                    _, job = add_document(upload=upload, collection=collection, tags=tags)
            except Problem as problem:
                details = "; ".join(error.detail for error in problem.errors)
                raise CommandError(details or problem.detail) from None
            run_claimed_job(job_id=str(job.pk), embedder=embedder())
            job.refresh_from_db()
        self._report(job)

    def _collection(self, name: str | None) -> Collection:
        if not name:
            return default_collection()
        found: Collection | None = Collection.objects.filter(slug=name).first()
        return found or save_collection(collection=Collection(), changes={"slug": name, "name": name})

    def _report(self, job: Job) -> None:
        self.stdout.write(
            f"{job.seen} seen, {job.changed} indexed, {job.unchanged} unchanged, {job.deleted} deleted, "
            f"{job.failed} failed, {job.skipped} skipped; {job.chunks_added} passages added, {job.chunks_kept} kept, "
            f"{job.chunks_removed} removed"
        )
        for error in job.errors:
            self.stderr.write(f"{error['document']}: {error['reason']}")
        if job.state != Job.State.SUCCESS:
            raise CommandError(job.error or "The work goes on in a worker: see its job.")
