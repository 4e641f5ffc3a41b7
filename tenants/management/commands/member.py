"""``manage.py member add nina --tenant acme --role network_engineer | list | suspend | resume | remove``"""

import getpass
import os
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ragsite.core.problems import Problem
from tenants.command_line import find_tenant, whole_tenant
from tenants.models import Membership, Role, User
from tenants.people import add_member, change_member, create_user, remove_member


class Command(BaseCommand):
    help = "Adds, lists, suspends, resumes and removes the members of a tenant."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        add = actions.add_parser(
            "add", help="a new member; asks for the password unless RAGSITE_MEMBER_PASSWORD holds it"
        )
        add.add_argument("--role", required=True)
        add.add_argument("--email", default="")
        for name in ("suspend", "resume", "remove"):
            actions.add_parser(name)
        for name, action in actions.choices.items():
            action.add_argument("username")
            action.add_argument("--tenant", required=True)
            assert name
        listing = actions.add_parser("list")
        listing.add_argument("--tenant", required=True)

    def handle(self, *args: Any, **options: Any) -> None:
        with whole_tenant(find_tenant(options["tenant"])):
            try:
                self._act(options)
            except Problem as problem:
                raise CommandError("; ".join(e.detail for e in problem.errors) or problem.detail) from None

    def _act(self, options: dict[str, Any]) -> None:
        members = Membership.objects.select_related("user", "role", "tenant")
        if options["action"] == "list":
            for member in members:
                self.stdout.write(f"{member.user.username}\t{member.role.name}\t{member.status}")
            return
        name = options["username"]
        if options["action"] == "add":
            role = Role.objects.filter(name=options["role"]).first()
            if role is None:
                known = ", ".join(Role.objects.values_list("name", flat=True))
                raise CommandError(f"There is no role “{options['role']}”: choose one of {known}.")
            user = User.objects.filter(username=name).first() or create_user(
                username=name,
                email=options["email"],
                password=os.environ.get("RAGSITE_MEMBER_PASSWORD")
                or getpass.getpass(f"Password of {name}: "),
            )
            add_member(user=user, role=role)
            self.stdout.write(f"{name} is a member.")
            return
        member = members.filter(user__username=name).first()
        if member is None:
            raise CommandError(f"{name} is not a member of {options['tenant']}.")
        if options["action"] == "remove":
            remove_member(membership=member)
        else:
            status = "suspended" if options["action"] == "suspend" else "active"
            change_member(membership=member, status=status)
        self.stdout.write("Done; it holds from their next request on.")
