"""Storing an answer, also when its reader has gone."""

import structlog
from django.db import DataError, IntegrityError

from knowledge.answering.journey import Journey
from knowledge.answering.record import calls_of, store_answer
from knowledge.answering.spending import wait_for_setting_aside
from knowledge.models import Answer
from ragsite.core.background import in_background
from ragsite.core.hops import run_db
from tenants.scope import atomic, enter
from tenants.usage import record_calls

logger = structlog.get_logger(__name__)


def store_journey(*, journey: Journey, status: str) -> Answer:
    answer = journey.to_answer(status=status)
    if journey.stopped is not None:
        # Its words are those that its asker waited for; its calls are theirs to the end.
        journey.stopped.input_tokens = answer.input_tokens
        journey.stopped.output_tokens = answer.output_tokens
        answer = journey.stopped
    return store_answer(
        principal=journey.principal,
        answer=answer,
        attempts=journey.attempts,
        conversation_id=journey.question.conversation,
    )


def _store_calls(journey: Journey) -> None:
    """The calls of an answer that the database does not take: they were made, and have to be paid for."""
    question = journey.question
    with atomic():
        record_calls(
            user=journey.principal.membership.user,
            request_id=question.request_id,
            endpoint=question.endpoint,
            calls=calls_of(journey.attempts),
        )


def store_in_background(journey: Journey, *, status: str) -> None:
    """After the reader went away this task is being cancelled: storing must not be cancelled with it."""

    async def store() -> None:
        await wait_for_setting_aside(journey)
        with enter(journey.principal.scope()):
            try:
                await run_db(store_journey, journey=journey, status=status)
            except Exception as error:
                # Nobody is left to tell; what is lost is named in the log, with its trace.
                logger.exception("cancelled answer not stored", answer=str(journey.question.request_id))
                if isinstance(error, DataError | IntegrityError | ValueError):
                    await run_db(_store_calls, journey)

    in_background(store())
