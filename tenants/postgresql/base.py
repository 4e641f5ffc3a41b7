"""Django's PostgreSQL backend, plus the scope in force handed to row-level security.

Every statement of the application alias passes an execute wrapper, which sends ``set_config(…, true)`` with it where the
scope differs from what the transaction has. Both go as one message of the simple query protocol, which costs one round trip
and in autocommit is one transaction of its own (PostgreSQL manual, 54.2.2.1): the settings end with it.
They are always local to a transaction: a session-level ``SET`` would leak to the pool's next borrower.
"""

from collections.abc import Callable
from typing import Any

import psycopg
from psycopg.sql import Literal

from ragsite.core.breaker import database_breaker
from ragsite.core.breaker_rules import BreakerOpen
from tenants.postgresql.gated import GatedWrapper
from tenants.scope import current_scope

Settings = tuple[str, str, str]
NOTHING: Settings = ("", "", "")
_APPLY = (
    "SELECT set_config('ragsite.tenant', {}, true), set_config('ragsite.tags', {}, true),"
    " set_config('ragsite.user', {}, true)"
)
# What the ORM makes of one statement each; anything else gets its settings by themselves.
_ONE_STATEMENT = ("SELECT ", "INSERT ", "UPDATE ", "DELETE ")
# Allowed in an aborted transaction, and needing no context.
_TRANSACTION_CONTROL = ("SAVEPOINT", "RELEASE SAVEPOINT", "ROLLBACK TO SAVEPOINT")


class DatabaseWrapper(GatedWrapper):
    """The application role's connection."""

    keeps_to_scope = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._applied: Settings | None = NOTHING  # None: unknown
        self.execute_wrappers.append(self._execute_in_scope)

    def _execute_in_scope(
        self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]
    ) -> Any:
        scope = current_scope()
        wanted = scope.database_settings() if scope else NOTHING
        in_transaction = self.in_atomic_block or not self.get_autocommit()
        has_it = wanted == (self._applied if in_transaction else NOTHING)
        if has_it or str(sql).startswith(_TRANSACTION_CONTROL):
            return execute(sql, params, many, context)
        if not many and isinstance(sql, str) and sql.startswith(_ONE_STATEMENT):
            found = execute(self._settings_of(wanted, sql, params), params, many, context)
            context["cursor"].nextset()  # past what set_config returned
            if in_transaction:
                self._applied = wanted
            return found
        if in_transaction:
            self._apply(wanted)
            return execute(sql, params, many, context)
        with self.wrap_database_errors, self.connection.transaction():
            self._apply(wanted)
            self._applied = NOTHING
            return execute(sql, params, many, context)

    def _settings_of(self, wanted: Settings, sql: str, params: Any) -> str:
        """The statement with the settings before it."""
        values = [Literal(value).as_string(self.connection) for value in wanted]
        if params is not None:  # then the driver takes a per cent sign for a place of a parameter
            values = [value.replace("%", "%%") for value in values]
        return f"{_APPLY.format(*values)}; {sql}"

    def _apply(self, wanted: Settings) -> None:
        # Through the raw connection: a query count in a test stays the count of the code's own queries.
        with self.wrap_database_errors:
            self.connection.execute(_APPLY.format("%s", "%s", "%s"), wanted)
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
        return super()._commit()

    def _rollback(self) -> Any:
        self._applied = NOTHING
        return super()._rollback()

    def _savepoint_rollback(self, sid: str) -> None:
        super()._savepoint_rollback(sid)  # type: ignore[misc]
        self._applied = None
