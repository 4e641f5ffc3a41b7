"""Fills the benchmark's tenant, in a process with the environment of its stack (``manage.py shell -c``)."""

import json
from pathlib import Path
from typing import Any

TENANT = "bench"
ROLE, ADMIN = "bench", "bench-admin"


def fill(order: str) -> None:
    """Makes the tenant with its members and documents as far as they are missing, and writes access tokens of all.

    Args:
        order: a file with JSON: ``members`` (a number), ``folder`` (of documents) and ``result``, where ``{"members": […],
            "admin": …}`` goes.
    """
    from django.core.management import call_command

    from knowledge.models import Document
    from tenants.models import Membership, Role, Tenant, User
    from tenants.people import add_member, create_tenant, create_user
    from tenants.scope import scope, unscoped
    from tenants.tokens import issue_tokens

    wanted: dict[str, Any] = json.loads(Path(order).read_text())
    with unscoped(reason="bench: find its tenant"):
        tenant = Tenant.objects.filter(slug=TENANT).first()
    tenant = tenant or create_tenant(slug=TENANT, name="Benchmarks")

    def role_of(name: str, abilities: list[str]) -> Role:
        found: Role | None = Role.objects.filter(name=name).first()
        return found or Role.objects.create(name=name, tags=[], reads_everything=True, abilities=abilities)

    def token_of(name: str, role: Role) -> str:
        user = User.objects.filter(username=name).first() or create_user(username=name)
        member = Membership.objects.select_related("user", "role", "tenant").filter(user=user).first()
        return issue_tokens(membership=member or add_member(user=user, role=role)).access

    with scope(tenant_id=tenant.pk, tags=None):
        asking, managing = role_of(ROLE, ["ask"]), role_of(ADMIN, ["ask", "manage", "see_costs"])
        tokens = [token_of(f"bench-{number:04}", asking) for number in range(wanted["members"])]
        admin = token_of("bench-admin", managing)
        has_documents = Document.objects.exists()
    if not has_documents:
        call_command("ingest", wanted["folder"], tenant=TENANT, collection="bench")
    Path(wanted["result"]).write_text(json.dumps({"members": tokens, "admin": admin}))
