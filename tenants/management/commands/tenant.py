"""``manage.py tenant create acme "Acme Ltd" | list | suspend acme | resume acme``"""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ragsite.core.problems import Problem
from tenants.command_line import find_tenant
from tenants.models import Tenant
from tenants.people import create_tenant, set_tenant_status
from tenants.scope import unscoped


class Command(BaseCommand):
    help = "Creates, lists, suspends and resumes tenants."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        create = actions.add_parser("create", help="a new tenant with the default roles")
        create.add_argument("slug")
        create.add_argument("name", nargs="?")
        actions.add_parser("list")
        for name in ("suspend", "resume"):
            actions.add_parser(name).add_argument("slug")

    def handle(self, *args: Any, **options: Any) -> None:
        match options["action"]:
            case "create":
                try:
                    tenant = create_tenant(slug=options["slug"], name=options["name"] or options["slug"])
                except Problem as problem:
                    raise CommandError(
                        "; ".join(e.detail for e in problem.errors) or problem.detail
                    ) from None
                self.stdout.write(
                    f"{tenant.slug} is there. Next: manage.py member add NAME --tenant {tenant.slug} --role admin"
                )
            case "list":
                with unscoped(reason="command line: list tenants"):
                    for tenant in Tenant.objects.all():
                        self.stdout.write(f"{tenant.slug}\t{tenant.name}\t{tenant.status}")
            case action:
                status = Tenant.Status.SUSPENDED if action == "suspend" else Tenant.Status.ACTIVE
                set_tenant_status(tenant=find_tenant(options["slug"]), status=status)
                self.stdout.write(f"{options['slug']} is {status.value}.")
