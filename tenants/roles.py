"""The roles that a new tenant starts with."""

from dataclasses import dataclass

from tenants.models import Ability, Role

ASK, UPLOAD, SEE_COSTS = Ability.ASK.value, Ability.UPLOAD.value, Ability.SEE_COSTS.value


@dataclass(frozen=True)
class DefaultRole:
    """A role's name, the tags it reads, and what it may do."""

    name: str
    tags: tuple[str, ...]
    abilities: tuple[str, ...]
    reads_everything: bool = False


DEFAULT_ROLES = (
    DefaultRole(
        "network_engineer",
        ("configs", "runbooks", "standards", "topology", "change_requests", "post_mortems"),
        (ASK, UPLOAD),
    ),
    DefaultRole(
        "security_analyst",
        (
            "configs",
            "security_policies",
            "incident_reports",
            "vulnerability_scans",
            "firewall_rules",
            "compliance",
        ),
        (ASK, UPLOAD),
    ),
    DefaultRole("helpdesk", ("runbooks", "faq", "troubleshooting_guides"), (ASK,)),
    DefaultRole(
        "management", ("standards", "compliance", "architecture_docs", "capacity_reports"), (ASK, SEE_COSTS)
    ),
    DefaultRole("admin", (), tuple(ability.value for ability in Ability), reads_everything=True),
)


def create_default_roles() -> dict[str, Role]:
    """Adds the default roles that the tenant in force lacks; returns all of its roles by name."""
    existing = set(Role.objects.values_list("name", flat=True))
    Role.objects.bulk_create(
        Role(
            name=role.name,
            tags=list(role.tags),
            abilities=list(role.abilities),
            reads_everything=role.reads_everything,
        )
        for role in DEFAULT_ROLES
        if role.name not in existing
    )
    return {role.name: role for role in Role.objects.all()}
