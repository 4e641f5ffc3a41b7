"""Every write that something remembered may rest on shuts its gate (``tenants.gate``) for the moment of its commit.

At the connection, for nothing goes past it: not ``update()`` or ``bulk_create()``, no cascade, no SQL by hand.
"""

from collections.abc import Callable
from typing import Any

from django.db.backends.postgresql import base

from tenants.gate import gate_of, shut


class GatedWrapper(base.DatabaseWrapper):
    """PostgreSQL's backend that tells the gates. ``keeps_to_scope``: it cannot write another tenant's rows."""

    keeps_to_scope = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gates: set[str] = set()
        self.execute_wrappers.append(self._execute_watched)

    def _execute_watched(
        self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]
    ) -> Any:
        gate = gate_of(str(sql), keeps_to_scope=self.keeps_to_scope)
        if gate is None:
            return execute(sql, params, many, context)
        if self.in_atomic_block or not self.get_autocommit():
            self.gates.add(gate)
            return execute(sql, params, many, context)
        with shut([gate]):
            return execute(sql, params, many, context)

    def connect(self) -> None:
        self.gates.clear()
        super().connect()

    def _commit(self) -> Any:
        if not self.gates:
            return super()._commit()  # type: ignore[misc]
        gates, self.gates = self.gates, set()
        with shut(gates):
            return super()._commit()  # type: ignore[misc]

    def _rollback(self) -> Any:
        self.gates.clear()
        return super()._rollback()  # type: ignore[misc]
