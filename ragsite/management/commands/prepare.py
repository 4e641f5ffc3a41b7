"""``manage.py prepare``: what ``up`` runs beside the starting web process."""

from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand

from ragsite.core.config import config


class Command(BaseCommand):
    help = "Migrates the database and, in dev, adds the demo data where it is missing; may be repeated."
    requires_system_checks: list[str] = []  # they load every route, which takes seconds

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write("migrating the database")
        self.stdout.flush()
        call_command("migrate", interactive=False, verbosity=0)
        if config().environment == "dev":
            self.stdout.write("looking after the demo data (the first time takes a minute)")
            self.stdout.flush()
            call_command("seed_demo")
