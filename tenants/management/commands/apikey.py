"""``manage.py apikey create NAME --tenant acme --member nina | list | revoke NAME``"""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ragsite.core.problems import Problem
from tenants.access import Principal
from tenants.command_line import find_tenant, whole_tenant
from tenants.keys import create_api_key, revoke_api_key
from tenants.models import ApiKey, Membership


class Command(BaseCommand):
    help = "Makes, lists and revokes a tenant's API keys."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        create = actions.add_parser("create", help="prints the key, this once")
        create.add_argument("name")
        create.add_argument("--member", required=True, help="the member it acts as")
        create.add_argument("--scopes", nargs="*", default=[], help="abilities; none: all of the member's")
        actions.add_parser("revoke").add_argument("name")
        actions.add_parser("list")
        for action in actions.choices.values():
            action.add_argument("--tenant", required=True)

    def handle(self, *args: Any, **options: Any) -> None:
        with whole_tenant(find_tenant(options["tenant"])):
            try:
                self._act(options)
            except Problem as problem:
                raise CommandError("; ".join(e.detail for e in problem.errors) or problem.detail) from None

    def _act(self, options: dict[str, Any]) -> None:
        if options["action"] == "list":
            for key in ApiKey.objects.select_related("membership__user"):
                state = "live" if key.is_live else "ended"
                self.stdout.write(f"{key.name}\t{key.membership.user.username}\t…{key.hint}\t{state}")
            return
        members = Membership.objects.select_related("user", "role", "tenant")
        if options["action"] == "create":
            member = members.filter(user__username=options["member"]).first()
            if member is None:
                raise CommandError(f"{options['member']} is not a member of {options['tenant']}.")
            if ApiKey.objects.filter(name=options["name"], revoked_at__isnull=True).exists():
                raise CommandError(f"A key named {options['name']} exists already: choose another name.")
            principal = _operator(member)
            _, secret = create_api_key(
                principal=principal, member=member, name=options["name"], scopes=options["scopes"]
            )
            self.stdout.write(secret)
            return
        key = (
            ApiKey.objects.filter(name=options["name"], revoked_at__isnull=True)
            .select_related("membership__user", "membership__role", "membership__tenant")
            .first()
        )
        if key is None:
            raise CommandError(f"There is no live key named {options['name']}.")
        revoke_api_key(principal=_operator(key.membership), key=key)
        self.stdout.write("Revoked; its next request is refused.")


def _operator(member: Membership) -> Principal:
    return Principal(membership=member, method="system", abilities=frozenset())
