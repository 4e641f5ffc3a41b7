"""A question that is sent again under its ``Idempotency-Key``: its answer as it may be read now."""

from typing import Any
from uuid import UUID

from knowledge.access import access_answer
from knowledge.answering.events import Event
from knowledge.answering.record import present_answers
from knowledge.api.streaming import stored_events
from knowledge.models import Answer
from ragsite.core.hops import run_db
from ragsite.core.problems import Problem
from tenants.idempotency import HEADER
from tenants.rest import AsyncTenantView


class AskingView(AsyncTenantView):
    """A view whose POST asks. An answer that broke off is none: its key is free, and the question asked anew."""

    ends_with_asker = True

    def is_whole(self, reference: UUID) -> bool | None:
        answer = Answer.objects.filter(pk=reference).only("status").first()
        return None if answer is None else not answer.is_broken

    async def read_again(self, reference: UUID) -> dict[str, Any]:
        """The answer object.

        Raises:
            Problem: 409 for an answer that is being made.
        """
        membership = self.principal.membership

        def read() -> dict[str, Any]:
            if self.is_whole(reference) is None:
                raise _under_way(reference)
            return present_answers([access_answer(membership, reference)], membership=membership)[0]

        return await run_db(read)

    async def events_again(self, reference: UUID) -> list[Event]:
        """Raises Problem as ``read_again``."""
        events = await run_db(stored_events, membership=self.principal.membership, pk=reference)
        if events is None:
            raise _under_way(reference)
        return events


def _under_way(reference: UUID) -> Problem:
    return Problem(
        409,
        "request-in-progress",
        f"The first request is being answered, or ended without an answer: join it at /api/v1/answers/{reference}/stream, "
        f"ask again in a moment, or with a new {HEADER}.",
        headers={"Retry-After": "1"},
    )
