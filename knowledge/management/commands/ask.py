"""``manage.py ask "…" --tenant acme --user nina``"""

import asyncio
import uuid
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from knowledge.answering.collect import collect_answer
from knowledge.answering.journey import Question
from knowledge.answering.services import gateway
from knowledge.config import answer_config
from ragsite.core.problems import Problem
from tenants.access import Principal
from tenants.command_line import find_tenant, whole_tenant
from tenants.models import Membership
from tenants.scope import enter


class Command(BaseCommand):
    help = "Asks a question as a member of a tenant, and prints the answer with its sources."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("question")
        parser.add_argument("--tenant", required=True, help="the tenant's slug")
        parser.add_argument(
            "--user", required=True, help="a member's user name; the answer is what their role may see"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        text = options["question"].strip()
        if not 3 <= len(text) <= 1000:
            raise CommandError("A question has 3 to 1,000 characters.")
        with whole_tenant(find_tenant(options["tenant"])):
            membership = (
                Membership.objects.select_related("user", "role", "tenant")
                .filter(user__username=options["user"], status=Membership.Status.ACTIVE)
                .first()
            )
        if membership is None:
            raise CommandError(f"{options['user']} is not an active member of {options['tenant']}.")
        principal = Principal(
            membership=membership, method="system", abilities=frozenset(membership.role.abilities)
        )
        question = Question(request_id=uuid.uuid4(), text=text, endpoint="command")

        async def ask() -> dict[str, Any]:
            return await collect_answer(
                question=question, principal=principal, config=answer_config(), gateway=gateway()
            )

        try:
            with enter(principal.scope()):
                answer = asyncio.run(ask())
        except Problem as problem:
            raise CommandError(problem.detail) from None
        self.stdout.write(answer["answer"])
        self.stdout.write("")
        for source in answer["sources"]:
            page = f", page {source['page']}" if source["page"] else ""
            self.stdout.write(
                f"[{source['n']}] {source['title']} ({source['uri']}{page}) {source['score']:.2f}"
            )
