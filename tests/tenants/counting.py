"""How often the database is asked."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from django.db import connections
from django.test.utils import CaptureQueriesContext


def queries_of(act: Callable[[], Any]) -> int:
    """Statements on every alias while ``act`` runs, which must succeed."""
    with ExitStack() as stack:
        captured = [
            stack.enter_context(CaptureQueriesContext(connections[alias]))
            for alias in ("default", "platform")
        ]
        response = act()
        assert response.status_code == 200, response.content
    return sum(len(one) for one in captured)


def without_scope(sql: str) -> str:
    """A captured statement alone: its scope is sent in the same message, before it."""
    return sql.rpartition("true); ")[2]
