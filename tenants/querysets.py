"""Wall 1: tenant data is reached through a scope or not at all."""

from typing import Any, Self, TypeVar

from django.db import models
from django.db.models import sql
from django.db.models.sql.where import AND

from tenants.scope import ScopeMissing, current_scope

Row = TypeVar("Row", bound=models.Model)


def _missing(model: type[models.Model]) -> ScopeMissing:
    return ScopeMissing(
        f"{model.__name__} was queried outside of a scope: enter scope(tenant_id=…) first, "
        "or unscoped(reason=…) for platform work."
    )


class _RefusedQuery(sql.Query):
    """The query of a queryset that was made without a scope: no SQL ever comes of it.

    ``Subquery``, ``Exists`` and ``union`` take a queryset's query and never ask the queryset itself.
    """

    def get_compiler(self, *args: Any, **kwargs: Any) -> Any:
        raise _missing(self.model)  # type: ignore[arg-type]

    def resolve_expression(self, *args: Any, **kwargs: Any) -> Any:
        raise _missing(self.model)  # type: ignore[arg-type]


class TenantQuerySet(models.QuerySet[Row]):
    """Rows of the tenant in force.

    Made without a scope it stays unusable: evaluating it raises ``ScopeMissing``, also inside a scope entered later,
    because its filter was never applied.
    """

    _pending = False

    def _refuse_without_scope(self) -> None:
        if self._pending:
            raise _missing(self.model)

    def _refuse_either_without_scope(self, other: Any) -> None:
        self._refuse_without_scope()
        if getattr(other, "_pending", False):
            raise _missing(other.model)

    # Combining would take the other side's conditions and leave the missing filter behind.
    def __and__(self, other: Any) -> Any:
        self._refuse_either_without_scope(other)
        return super().__and__(other)

    def __or__(self, other: Any) -> Any:
        self._refuse_either_without_scope(other)
        return super().__or__(other)

    def __xor__(self, other: Any) -> Any:
        self._refuse_either_without_scope(other)
        return super().__xor__(other)

    def raw(self, *args: Any, **kwargs: Any) -> Any:
        self._refuse_without_scope()
        return super().raw(*args, **kwargs)

    def _insert(self, *args: Any, **kwargs: Any) -> Any:
        # The platform's own log has rows of no tenant, which are written without a scope.
        if kwargs.get("using") != "platform":
            self._refuse_without_scope()
        return super()._insert(*args, **kwargs)  # type: ignore[misc]

    def _clone(self) -> Self:
        clone: Self = super()._clone()  # type: ignore[misc]
        clone._pending = self._pending
        return clone

    def _fetch_all(self) -> None:
        self._refuse_without_scope()
        super()._fetch_all()

    def _iterator(self, *args: Any, **kwargs: Any) -> Any:
        self._refuse_without_scope()
        return super()._iterator(*args, **kwargs)  # type: ignore[misc]

    def aiterator(self, chunk_size: int = 2000) -> Any:
        self._refuse_without_scope()
        return super().aiterator(chunk_size)

    def count(self) -> int:
        self._refuse_without_scope()
        return super().count()

    def exists(self) -> bool:
        self._refuse_without_scope()
        return super().exists()

    def aggregate(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        self._refuse_without_scope()
        return super().aggregate(*args, **kwargs)

    def update(self, **kwargs: Any) -> int:
        self._refuse_without_scope()
        return super().update(**kwargs)

    update.alters_data = True  # type: ignore[attr-defined]

    def _update(self, values: Any, *args: Any, **kwargs: Any) -> int:
        self._refuse_without_scope()
        return super()._update(values, *args, **kwargs)  # type: ignore[misc,no-any-return]

    def delete(self) -> tuple[int, dict[str, int]]:
        self._refuse_without_scope()
        return super().delete()

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]

    def _raw_delete(self, using: str | None) -> int:
        self._refuse_without_scope()
        return super()._raw_delete(using)

    def resolve_expression(self, *args: Any, **kwargs: Any) -> Any:
        self._refuse_without_scope()
        return super().resolve_expression(*args, **kwargs)

    def of_no_tenant(self) -> Self:
        """Before a tenant is chosen (``identity``): no filter of ours, row-level security shows one's own rows alone."""
        scope = current_scope()
        if scope is None or scope.user_id is None:
            raise ScopeMissing("of_no_tenant() is for identity(user_id=…) alone.")
        clone = self._clone()
        clone.query = clone.query.chain(klass=sql.Query)
        clone._pending = False
        return clone

    def in_scope(self) -> Self:
        """Applies the scope in force, or marks the queryset as unusable."""
        scope = current_scope()
        if scope is None or (scope.tenant_id is None and not scope.platform):
            clone = self._clone()
            clone.query = clone.query.chain(klass=_RefusedQuery)
            clone._pending = True
            return clone
        if scope.platform:
            return self._clone()
        # The tenant as a literal beside the policy: the planner then finds partial indexes and partitions. It is what
        # filter(tenant_id=…) makes, for a third of the work; every query begins so.
        clone = self._clone()
        tenant: Any = clone.model._meta.get_field("tenant")
        column = tenant.get_col(clone.query.get_initial_alias())
        clone.query.where.add(tenant.get_lookup("exact")(column, scope.tenant_id), AND)
        return clone


class TenantManager(models.Manager.from_queryset(TenantQuerySet)):  # type: ignore[misc]
    """The only manager of a tenant model; also its base manager, so ``save`` and relations are scoped too."""

    def get_queryset(self) -> Any:
        return super().get_queryset().in_scope()
