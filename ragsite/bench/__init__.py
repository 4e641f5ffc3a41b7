"""The kinds of ``manage.py bench``, one module each: ``retrieval_scale.py`` is ``bench retrieval-scale``.

A kind has a docstring whose first line is its help, and three functions:

- ``add_arguments(parser)``: its options; ``--json`` is there already;
- ``measure(options, *, say)``: works, tells people how far it is by ``say(line)``, and returns figures that JSON can hold;
- ``render(figures)``: the lines for people.

What is heavy to import is imported in ``measure``: the command line loads every kind to list them.
"""

import pkgutil
from argparse import ArgumentParser
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any, Protocol, cast

Say = Callable[[str], None]
Figures = dict[str, Any]


class Kind(Protocol):
    """A module of this package."""

    __doc__: str | None

    def add_arguments(self, parser: ArgumentParser) -> None: ...

    def measure(self, options: dict[str, Any], *, say: Say) -> Figures: ...

    def render(self, figures: Figures) -> Iterable[str]: ...


def bench_kinds() -> dict[str, Kind]:
    """Every kind by its name on the command line."""
    return {
        module.name.replace("_", "-"): cast(Kind, import_module(f"{__name__}.{module.name}"))
        for module in pkgutil.iter_modules(__path__)
        if not module.name.startswith("_")
    }
