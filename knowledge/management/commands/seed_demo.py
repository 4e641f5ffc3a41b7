"""``manage.py seed_demo``: the two demo tenants, once."""

from pathlib import Path
from typing import Any

import yaml
from django.core.management.base import BaseCommand, CommandError

from knowledge.documents import save_collection
from knowledge.embedding.factory import embedder
from knowledge.ingestion.index import Original, index_document
from knowledge.ingestion.storage import read_original, store_original
from knowledge.models import Collection, Document
from ragsite.core.config import config
from tenants.models import Membership, Role, Tenant, User
from tenants.people import add_member, create_tenant, create_user
from tenants.scope import scope, unscoped

DEMO = Path(__file__).resolve().parent.parent.parent / "demo"
PASSWORD = "demo-ragsite"  # noqa: S105  printed at every start, and refused in production
PEOPLE = {
    "acme": {"ada": "admin", "nina": "network_engineer", "sam": "security_analyst", "hal": "helpdesk"},
    "globex": {"gus": "admin", "gina": "network_engineer"},
}
SUPERUSER = "root"


class Command(BaseCommand):
    help = "Adds the demo tenants acme and globex with their people and documents, if they are not there yet (dev only)."

    def handle(self, *args: Any, **options: Any) -> None:
        if config().environment != "dev":
            raise CommandError("Demo data has well-known passwords: it is for the environment dev alone.")
        if not User.objects.filter(username=SUPERUSER).exists():
            User.objects.create_superuser(SUPERUSER, password=PASSWORD)
        manifest = yaml.safe_load((DEMO / "manifest.yaml").read_text(encoding="utf-8"))
        for entry in manifest["tenants"]:
            tenant = self._tenant(entry)
            with scope(tenant_id=tenant.pk, tags=None):
                self._people(entry["slug"])
                self._documents(entry)

    def _tenant(self, entry: dict[str, Any]) -> Tenant:
        with unscoped(reason="seed the demo data"):
            found = Tenant.objects.filter(slug=entry["slug"]).first()
        return found or create_tenant(slug=entry["slug"], name=entry["name"], is_demo=True)

    def _people(self, slug: str) -> None:
        roles = {role.name: role for role in Role.objects.all()}
        for username, role in PEOPLE[slug].items():
            user = User.objects.filter(username=username).first() or create_user(
                username=username, email=f"{username}@{slug}.example", password=PASSWORD, check_password=False
            )
            if not Membership.objects.filter(user=user).exists():
                add_member(user=user, role=roles[role])

    def _documents(self, entry: dict[str, Any]) -> None:
        collections: dict[str, Collection] = {c.slug: c for c in Collection.objects.all()}
        for row in entry["collections"]:
            if row["slug"] not in collections:
                collections[row["slug"]] = save_collection(collection=Collection(), changes=row)
        # A document that somebody deleted stays deleted; one that a killed start left half-way is finished.
        known: dict[str, Document] = {d.uri: d for d in Document.objects.without_text()}
        todo = [
            row
            for row in entry["documents"]
            if row["path"] not in known or known[row["path"]].status == Document.Status.PENDING
        ]
        for number, row in enumerate(todo, start=1):
            self.stdout.write(f"{entry['slug']}: indexing {number} of {len(todo)}: {row['path']}")
            self.stdout.flush()
            document = known.get(row["path"]) or self._create(entry, row, collections[row["collection"]])
            index_document(
                document=document,
                original=Original(
                    data=read_original(tenant_id=document.tenant_id, stored_name=document.pending_name),
                    filename=Path(row["path"]).name,
                    stored_name=document.pending_name,
                ),
                embedder=embedder(),
                title=document.given_title,
            )
            Document.objects.filter(pk=document.pk).update(pending_name="")

    def _create(self, entry: dict[str, Any], row: dict[str, Any], collection: Collection) -> Document:
        data = (DEMO / entry["slug"] / row["path"]).read_bytes()
        tags = collection.default_tags if row["tags"] is None else row["tags"]
        document: Document = Document.objects.create(
            collection=collection,
            uri=row["path"],
            title=row.get("title") or Path(row["path"]).stem,
            given_title=row.get("title") or "",
            tags=sorted(tags),
            pending_name=store_original(tenant_id=collection.tenant_id, data=data),
        )
        return document
