"""Which documents a list is to show: what the address says, as a queryset of what the member reads."""

from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import urlencode

from django.db.models import Q, QuerySet
from django.http import QueryDict
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from knowledge.access import access_collections, access_source
from knowledge.models import Collection, Document, Source
from knowledge.tags import known_tags
from knowledge.views.shown import uuid_in
from ragsite.core.problems import Problem
from tenants.access import Principal
from tenants.models import Ability, Membership
from tenants.paging import NEWEST, Order

UPLOAD, MANAGE = Ability.UPLOAD.value, Ability.MANAGE.value

LATEST_DELETED = replace(NEWEST, field="deleted_at")
ORDERS = {
    "newest": NEWEST,
    "title": Order("title"),
    "size": Order("size", descending=True, read=int),
}
SORTS = (
    ("newest", gettext_lazy("Newest first")),
    ("title", gettext_lazy("By title")),
    ("size", gettext_lazy("Largest first")),
)
STATES = (
    ("indexed", gettext_lazy("Can be asked about")),
    ("pending", gettext_lazy("Waiting")),
    ("failed", gettext_lazy("Failed")),
)
UPLOADED = "none"  # as a source: what people uploaded
UNTAGGED = "-"  # no tag can be spelled like this
# What a row shows. Never the text, which may be megabytes, nor the offsets of its pages.
ROW = (
    "tenant_id",
    "title",
    "uri",
    "tags",
    "status",
    "error",
    "note",
    "size",
    "chunk_count",
    "pending_name",
    "created_at",
    "updated_at",
    "deleted_at",
    "collection__name",
    "collection__slug",
    "source__name",
)


@dataclass(frozen=True)
class DocumentFilter:
    """What the list is narrowed to; empty strings narrow nothing."""

    q: str = ""
    collection: str = ""
    tag: str = ""
    source: str = ""
    status: str = ""
    sort: str = ""

    @classmethod
    def read(cls, query: QueryDict) -> "DocumentFilter":
        """What the address says.

        Raises:
            Problem: 400 for what cannot be searched for.
        """
        values = {name: query.get(name, "").strip()[:200] for name in cls.__dataclass_fields__}
        if any("\0" in value for value in values.values()):
            raise Problem(400, "invalid", _("The search text holds a NUL character."))
        if values["sort"] not in ORDERS or values["sort"] == "newest":
            values["sort"] = ""
        return cls(**values)

    @property
    def query(self) -> str:
        """As the address says it, the shortest way."""
        return urlencode({name: value for name, value in asdict(self).items() if value})

    @property
    def narrows(self) -> bool:
        return any(value for name, value in asdict(self).items() if name != "sort")

    @property
    def deleted(self) -> bool:
        return self.status == "deleted"

    @property
    def order(self) -> Order:
        return LATEST_DELETED if self.deleted and not self.sort else ORDERS[self.sort or "newest"]

    def documents(self, principal: Principal) -> QuerySet[Any]:
        """The documents that the member reads and the filter lets through.

        Raises:
            Problem: 403 for what only some may look at, 404 for a collection or source that is not there.
        """
        membership = principal.membership
        if self.deleted:
            principal.require(UPLOAD)
            found = Document.objects.restorable_by(membership)
        else:
            found = Document.objects.visible_to(membership)
        if self.collection:
            found = found.filter(collection=access_collections(principal, [self.collection])[0])
        if self.tag:
            found = found.filter(tags=[]) if self.tag == UNTAGGED else found.filter(tags__contains=[self.tag])
        if self.source == UPLOADED:
            found = found.filter(source__isnull=True)
        elif self.source:
            principal.require(MANAGE)
            found = found.filter(source=access_source(membership, uuid_in(self.source)))
        if self.status == Document.Status.FAILED:
            # One whose newest version failed answers from its older one.
            found = found.filter(Q(status=Document.Status.FAILED) | ~Q(error=""))
        elif self.status in Document.Status.values:
            found = found.filter(status=self.status)
        if self.q:
            found = found.filter(Q(title__icontains=self.q) | Q(uri__icontains=self.q))
        narrowed: QuerySet[Any] = found.select_related("collection", "source").only(*ROW)
        return narrowed


def offered_tags(membership: Membership) -> list[str]:
    """The tags that a form offers: what the role reads; every role's for those who read everything."""
    readable = membership.role.readable_tags
    return known_tags() if readable is None else list(readable)


def filter_choices(principal: Principal) -> dict[str, Any]:
    """What the filters offer this member."""
    manages = principal.may(MANAGE)
    states = [*STATES, *([("deleted", _("Deleted"))] if principal.may(UPLOAD) else [])]
    return {
        "collections": list(Collection.objects.visible_to(principal)),
        "tags": offered_tags(principal.membership),
        "untagged": UNTAGGED if principal.membership.role.reads_everything else "",
        "sources": list(Source.objects.only("name", "tenant_id")) if manages else [],
        "uploaded": UPLOADED,
        "states": states,
        "sorts": SORTS,
    }
