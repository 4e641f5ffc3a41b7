"""``manage.py bench``: what is measured, as a table or, with ``--json``, as JSON on the last line."""

import json
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand

from ragsite.bench import bench_kinds


class Command(BaseCommand):
    help = "Measures; “bench KIND --help” tells a kind's options."

    def add_arguments(self, parser: ArgumentParser) -> None:
        kinds = parser.add_subparsers(dest="kind", required=True)
        for name, kind in bench_kinds().items():
            first_line = (kind.__doc__ or "").partition("\n")[0]
            child = kinds.add_parser(
                name,
                help=first_line,
                description=kind.__doc__,
                formatter_class=RawDescriptionHelpFormatter,  # what it says has paragraphs
            )
            kind.add_arguments(child)
            child.add_argument("--json", action="store_true", help="the figures as JSON on the last line")

    def handle(self, *args: Any, **options: Any) -> None:
        kind = bench_kinds()[options["kind"]]
        # Beside JSON for a machine, what is going on is for whoever watches.
        stream = self.stderr if options["json"] else self.stdout
        figures = kind.measure(options, say=lambda line: stream.write(line))
        if options["json"]:
            self.stdout.write(json.dumps(figures))
        else:
            for line in kind.render(figures):
                self.stdout.write(line)
