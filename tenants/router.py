"""Which of the three aliases of the one database a query takes."""

from typing import Any

from tenants.scope import alias


class ScopeRouter:
    """The application role by default, the platform role inside ``unscoped``, the owner for migrations."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return alias()

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return alias()

    def allow_relation(self, first: Any, second: Any, **hints: Any) -> bool:
        return True  # three aliases, one database

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return db == "owner"
