"""``manage.py up`` for Django's list of commands and ``manage.py help up``; manage.py itself runs it
without Django.
"""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from ragsite.up import HELP, add_arguments, run_up


class Command(BaseCommand):
    help = HELP
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        run_up(host=options["host"], port=options["port"], follow_parent=options["follow_parent"])
