"""``manage.py reindex --tenant acme [--collection runbooks]``"""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from knowledge.embedding.factory import embedder
from knowledge.ingestion.jobs import create_job
from knowledge.ingestion.run import run_claimed_job
from knowledge.models import Collection, Job
from tenants.command_line import find_tenant, whole_tenant


class Command(BaseCommand):
    help = "Parses and chunks a tenant's documents again; what comes out unchanged keeps its vectors."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--tenant", required=True, help="the tenant's slug")
        parser.add_argument("--collection", help="slug of a collection; default: all of them")

    def handle(self, *args: Any, **options: Any) -> None:
        with whole_tenant(find_tenant(options["tenant"])):
            collection = None
            if name := options["collection"]:
                collection = Collection.objects.filter(slug=name).first()
                if collection is None:
                    known = ", ".join(Collection.objects.values_list("slug", flat=True))
                    raise CommandError(f"There is no collection “{name}”: choose one of {known}.")
            job = create_job(kind=Job.Kind.REINDEX, collection=collection)
            run_claimed_job(job_id=str(job.pk), embedder=embedder())
            job.refresh_from_db()
        self.stdout.write(
            f"{job.changed} indexed, {job.failed} failed; {job.chunks_added} passages added, {job.chunks_kept} kept"
        )
        for error in job.errors:
            self.stderr.write(f"{error['document']}: {error['reason']}")
