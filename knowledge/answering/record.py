"""Answers as they are stored, and as they are shown again later."""

import time
import uuid
from collections.abc import Iterable
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from typing import Any
from uuid import UUID

from django.db.models import F
from django.utils import timezone

from knowledge.llm.base import Usage
from knowledge.llm.calls import Attempt
from knowledge.llm.prices import PriceRow, price_usage
from knowledge.models import Answer, Conversation, Document, Price
from tenants.access import Principal
from tenants.audit import record_event
from tenants.models import Membership
from tenants.scope import atomic
from tenants.usage import Call, record_calls

PRICES_FOR_SECONDS = 60.0
COST_DIGITS = Decimal("0.000000000001")
WITHHELD = "This answer quoted a document that has been deleted or that you may no longer read. Ask again."

_prices: tuple[float, tuple[PriceRow, ...]] = (0.0, ())


def load_prices() -> tuple[PriceRow, ...]:
    """The price table, remembered for a minute."""
    global _prices
    if not _prices[1] or time.monotonic() - _prices[0] > PRICES_FOR_SECONDS:
        rows = tuple(
            PriceRow(
                provider=row.provider,
                model=row.model,
                effective_from=row.effective_from,
                min_prompt_tokens=row.min_prompt_tokens,
                input_per_mtok=row.input_per_mtok,
                output_per_mtok=row.output_per_mtok,
                cache_write_factor=row.cache_write_factor,
                cache_read_factor=row.cache_read_factor,
            )
            for row in Price.objects.all()
        )
        _prices = (time.monotonic(), rows)
    return _prices[1]


def price_call(*, provider: str, model: str, usage: Usage, on: date | None = None) -> Decimal | None:
    """What a call cost in US dollars; ``None`` for a model without a price."""
    return price_usage(
        rows=load_prices(), provider=provider, model=model, usage=usage, on=on or timezone.now().date()
    )


def call_of(attempt: Attempt, *, kind: str) -> Call:
    """The ledger row of an attempt."""
    return Call(
        provider=attempt.provider,
        model=attempt.model,
        kind=kind,
        status=attempt.status,
        input_tokens=attempt.usage.input_tokens,
        output_tokens=attempt.usage.output_tokens,
        cache_read_tokens=attempt.usage.cache_read_tokens,
        cache_write_tokens=attempt.usage.cache_write_tokens,
        cost_usd=price_call(provider=attempt.provider, model=attempt.model, usage=attempt.usage),
        seconds=attempt.seconds,
        estimated=attempt.estimated,
    )


def store_answer(
    *,
    principal: Principal,
    answer: Answer,
    attempts: list[tuple[Attempt, str]],
    conversation_id: UUID | None,
) -> Answer:
    """Stores an answer, its ledger rows, its conversation and its audit event in one transaction.

    Args:
        answer: filled in but for cost and conversation.
        attempts: every model call made for it, each with its kind.
        conversation_id: the conversation it continues; a new one begins with it otherwise.
    """
    calls = calls_of(attempts)
    # One call without a price makes the sum unknown, not cheaper. Rounded as the database would, so that the answer
    # says the same now and when it is read again.
    answer.cost_usd = (
        None
        if any(call.cost_usd is None for call in calls)
        else sum((call.cost_usd or Decimal(0) for call in calls), Decimal(0)).quantize(
            COST_DIGITS, rounding=ROUND_HALF_UP
        )
    )
    user = principal.membership.user
    with atomic():
        if answer.endpoint == "batch":
            _drop_cut_off(answer.pk)
        if conversation_id is None:
            conversation = Conversation.objects.create(id=answer.pk, user=user, title=answer.question[:200])
            conversation_id = conversation.pk
        elif not Conversation.objects.filter(pk=conversation_id).update(updated_at=timezone.now()):
            conversation_id = None  # deleted meanwhile: the answer, and what it cost, stays
        answer.conversation_id = conversation_id
        answer.save(force_insert=True)
        record_event(
            action="question.ask",
            membership=principal.membership,
            method=principal.method,
            target=answer,
            detail={
                "documents": [str(pk) for pk in answer.document_ids],
                "answered": answer.answered,
                "cache": answer.cache,
                "credential": principal.credential,
            },
            address=principal.address,
        )
        record_calls(user=user, request_id=answer.pk, endpoint=answer.endpoint, calls=calls)
    return answer


def calls_of(attempts: list[tuple[Attempt, str]]) -> list[Call]:
    """As the ledger takes them."""
    return [call_of(attempt, kind=kind) for attempt, kind in attempts]


def _drop_cut_off(pk: UUID) -> None:
    """What a batch that was taken up again had of a question before; its calls stay in the ledger."""
    if Answer.objects.filter(pk=pk, status=Answer.CUT_OFF).delete()[0]:
        Conversation.objects.filter(pk=pk).delete()


def answer_object(answer: Answer, *, with_body: bool = True) -> dict[str, Any]:
    """The answer object of the API.

    Args:
        with_body: ``False`` leaves ``sources`` and ``answer`` out, as the stream's last event does.
    """
    body: dict[str, Any] = {
        "request_id": str(answer.pk),
        "question": answer.question,
        "citations": answer.citations,
        "marks": answer.marks,
        "cache": answer.cache,
        "cache_hit": answer.cache != "miss",
        "stale": False,
        "confidence": answer.confidence,
        "grounded": answer.grounded,
        "answered": answer.answered,
        "model": answer.model,
        "provider": answer.provider,
        "fallback": answer.fallback,
        "variant": None,
        "usage": {
            "input_tokens": answer.input_tokens,
            "output_tokens": answer.output_tokens,
            "cost_usd": None if answer.cost_usd is None else format(answer.cost_usd.normalize(), "f"),
        },
        "latency_ms": answer.latency_ms,
        "timings": answer.timings,
        "conversation": str(answer.conversation_id) if answer.conversation_id else None,
        "timestamp": (answer.created_at or timezone.now()).isoformat(),
    }
    if answer.is_broken:
        body["interrupted"] = answer.status
    if with_body:
        body["answer"] = answer.text
        body["sources"] = answer.sources
    return body


def present_answers(answers: list[Answer], *, membership: Membership) -> list[dict[str, Any]]:
    """Stored answers for one reader: what rests on a document that they may not read (any more) is withheld."""
    readable = readable_documents(answers, membership=membership)
    return [_present(answer, readable=readable) for answer in answers]


def readable_documents(answers: Iterable[Answer], *, membership: Membership) -> set[UUID]:
    """Of the documents that answers came from, those that the member may read."""
    needed = {pk for answer in answers for pk in answer.needed_ids}
    rows = Document.objects.visible_to(membership).filter(pk__in=needed)
    return set(rows.values_list("pk", flat=True))


def _present(answer: Answer, *, readable: set[UUID]) -> dict[str, Any]:
    body = answer_object(answer)
    if readable >= answer.needed_ids:
        return body
    body["sources"] = [s for s in answer.sources if uuid.UUID(s["document_id"]) in readable]
    body["citations"] = body["marks"] = []
    body["answer"] = WITHHELD
    body["withheld"] = True
    return body


def earlier_answers(*, membership: Membership, conversation_id: UUID, limit: int) -> list[Answer]:
    """The latest answers of a conversation, oldest first; what the member may not read any more is left out."""
    rows = list(
        Answer.objects.visible_to(membership)
        .filter(conversation_id=conversation_id, status__in=["success", "cached", "unanswered", "fallback"])
        .order_by(F("created_at").desc())[:limit]
    )
    readable = readable_documents(rows, membership=membership)
    return [row for row in reversed(rows) if readable >= row.needed_ids]
