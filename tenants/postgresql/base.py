"""Django's PostgreSQL backend, plus the scope in force handed to row-level security.

Every statement of the application alias passes an execute wrapper. Inside a transaction it issues ``set_config(…, true)``
when the scope differs from what this transaction has; in autocommit it opens a transaction around the one statement.
The settings are always local to a transaction: a session-level ``SET`` would leak to the pool's next borrower.
"""

from collections.abc import Callable
from typing import Any

import psycopg
from django.db.backends.postgresql import base

from ragsite.core.breaker import database_breaker
from ragsite.core.breaker_rules import BreakerOpen
from tenants.scope import current_scope

Settings = tuple[str, str, str]
NOTHING: Settings = ("", "", "")
_APPLY = (
    "SELECT set_config('ragsite.tenant', %s, true), set_config('ragsite.tags', %s, true),"
    " set_config('ragsite.user', %s, true)"
)
# Allowed in an aborted transaction, and needing no context.
_TRANSACTION_CONTROL = ("SAVEPOINT", "RELEASE SAVEPOINT", "ROLLBACK TO SAVEPOINT")


class DatabaseWrapper(base.DatabaseWrapper):
    """The application role's connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._applied: Settings | None = NOTHING  # None: unknown
        self.execute_wrappers.append(self._execute_in_scope)

    def _execute_in_scope(
        self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]
    ) -> Any:
        scope = current_scope()
        wanted = scope.database_settings() if scope else NOTHING
        if self.in_atomic_block or not self.get_autocommit():
            if wanted != self._applied and not str(sql).startswith(_TRANSACTION_CONTROL):
                self._apply(wanted)
            return execute(sql, params, many, context)
        if wanted == NOTHING:
            return execute(sql, params, many, context)
        with self.wrap_database_errors, self.connection.transaction():
            self._apply(wanted)
            self._applied = NOTHING
            return execute(sql, params, many, context)

    def _apply(self, wanted: Settings) -> None:
        # Through the raw connection: a query count in a test stays the count of the code's own queries.
        with self.wrap_database_errors:
            self.connection.execute(_APPLY, wanted)
        self._applied = wanted

    def get_new_connection(self, conn_params: Any) -> Any:
        """While the database is away, nobody waits for it: the breaker says so at once."""
        breaker = database_breaker()
        try:
            permit = breaker.admit_now()
        except BreakerOpen as error:
            raise psycopg.OperationalError(str(error)) from None
        failed_before = self._failed_connections()
        try:
            connection = super().get_new_connection(conn_params)
        except psycopg.OperationalError as error:
            # A pool whose connections are all in use is no sign of a database that is away.
            is_away = not self.pool or self._failed_connections() > failed_before
            breaker.report_now(permit, "failure" if is_away else "unknown", reason=type(error).__name__)
            raise
        breaker.report_now(permit, "success")
        return connection

    def _failed_connections(self) -> int:
        return int(self.pool.get_stats().get("connections_errors", 0)) if self.pool else 0

    def connect(self) -> None:
        self._applied = NOTHING
        super().connect()

    def _set_autocommit(self, autocommit: bool) -> None:
        self._applied = NOTHING
        super()._set_autocommit(autocommit)  # type: ignore[misc]

    def _commit(self) -> Any:
        self._applied = NOTHING
        return super()._commit()  # type: ignore[misc]

    def _rollback(self) -> Any:
        self._applied = NOTHING
        return super()._rollback()  # type: ignore[misc]

    def _savepoint_rollback(self, sid: str) -> None:
        super()._savepoint_rollback(sid)  # type: ignore[misc]
        self._applied = None
