"""Asking: whole, as a stream, or for passages alone."""

from uuid import UUID

from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from redis.exceptions import RedisError
from rest_framework.request import Request
from rest_framework.response import Response

from knowledge.access import access_answer, access_collections
from knowledge.answering.answer import answer_question
from knowledge.answering.batch import start_batch
from knowledge.answering.collect import collect_answer, collect_sources
from knowledge.answering.events import Readers, follow_events
from knowledge.answering.record import present_answers
from knowledge.answering.services import gateway
from knowledge.answering.spending import usual_tokens
from knowledge.api.collections import started
from knowledge.api.question_shapes import (
    AnswerShape,
    BatchForm,
    QuestionForm,
    SearchForm,
    SearchShape,
    question_of,
)
from knowledge.api.replay import AskingView
from knowledge.api.shapes import StartedShape
from knowledge.api.streaming import NDJSON, SSE, AnyFormat, play_events, stored_events, stream_events
from knowledge.config import answer_config
from ragsite.core.hops import run_db
from ragsite.core.problems import Problem, not_found
from tenants.models import Ability
from tenants.rest import AsyncTenantView, TenantView

ASK = Ability.ASK.value

STREAM_DOC = """One JSON object an event: `sources` first, then `answer_chunk`, `citation`, `mark` (a sentence that its
sources do not support) and, rarely, `restart` (forget the text so far), last `done` (the answer object without sources and
answer) or `error` (a problem).

NDJSON has one event a line. SSE carries the type as `event`, a sequence as `id`, the object as `data`, and a comment every
15 seconds."""


class QueryView(AskingView):
    abilities = {"POST": ASK}

    @extend_schema(request=QuestionForm, responses=AnswerShape, operation_id="query", tags=["ask"])
    async def post(self, request: Request) -> Response:
        """Ask; the whole answer at once."""
        form, config = self.parse(QuestionForm), answer_config()
        grant = await self.limited("query", tokens=usual_tokens(config))
        question = question_of(form, request=request._request, endpoint="query", grant=grant)
        self.reference = question.request_id
        return Response(
            await collect_answer(
                question=question, principal=self.principal, config=config, gateway=gateway()
            )
        )

    async def replay(self, reference: UUID) -> Response:
        return Response(await self.read_again(reference))


class QueryStreamView(AskingView):
    abilities = {"POST": ASK}
    content_negotiation_class = AnyFormat

    @extend_schema(
        request=QuestionForm,
        responses={(200, NDJSON): OpenApiTypes.STR, (200, SSE): OpenApiTypes.STR},
        operation_id="query_stream",
        tags=["ask"],
        description=STREAM_DOC,
        parameters=[
            OpenApiParameter(
                "X-Linger",
                str,
                OpenApiParameter.HEADER,
                description="“1”: when the connection is gone, the answer goes on for 10 seconds, or as long as "
                "`answers/{id}/stream` is read. Without it a disconnect ends the answer at once.",
            )
        ],
    )
    async def post(self, request: Request) -> StreamingHttpResponse:
        """Ask; the answer as it comes."""
        form, config = self.parse(QuestionForm), answer_config()
        grant = await self.limited("stream", tokens=usual_tokens(config))
        question = question_of(form, request=request._request, endpoint="stream", grant=grant)
        self.reference = question.request_id
        events = answer_question(
            question=question, principal=self.principal, config=config, gateway=gateway()
        )
        readers = None
        if request.headers.get("X-Linger") == "1":
            readers = Readers(membership=self.principal.membership, request_id=question.request_id)
        return await stream_events(request._request, events, readers=readers)

    async def replay(self, reference: UUID) -> StreamingHttpResponse:
        events = await self.events_again(reference)
        return await stream_events(self.request._request, play_events(events))


class QueryBatchView(AsyncTenantView):
    abilities = {"POST": ASK}

    @extend_schema(request=BatchForm, responses={202: StartedShape}, operation_id="query_batch", tags=["ask"])
    async def post(self, request: Request) -> Response:
        """Up to 100 questions, answered one after another; the task's `result` is the list of answer objects."""
        form = self.parse(BatchForm)
        await self.limited("batch")
        principal = self.principal
        names = form.get("collections", ())
        await run_db(access_collections, principal, names)
        questions = form.pop("questions")
        job = await run_db(start_batch, principal=principal, questions=questions, options=form)
        return started(job)


class SearchView(AsyncTenantView):
    abilities = {"POST": ASK}
    idempotent = False  # it makes nothing

    @extend_schema(request=SearchForm, responses=SearchShape, operation_id="search", tags=["ask"])
    async def post(self, request: Request) -> Response:
        """Retrieval alone: the passages nearest to a question."""
        form = self.parse(SearchForm)
        await self.limited("search")
        found = await collect_sources(
            text=form["question"],
            k=form.get("k"),
            collections=form.get("collections", ()),
            tags=form.get("tags", ()),
            endpoint="search",
            principal=self.principal,
            config=answer_config(),
        )
        return Response(found)


class AnswerView(TenantView):
    abilities = {"GET": ASK}

    @extend_schema(responses=AnswerShape, operation_id="answers_read", tags=["ask"])
    def get(self, request: Request, id: UUID) -> Response:
        """A stored answer; what you may no longer read is withheld."""
        membership = self.principal.membership
        answer = access_answer(membership, id)
        return Response(present_answers([answer], membership=membership)[0])


class AnswerStreamView(AsyncTenantView):
    abilities = {"GET": ASK, "DELETE": ASK}
    content_negotiation_class = AnyFormat

    @extend_schema(
        responses={
            (200, NDJSON): OpenApiResponse(OpenApiTypes.STR),
            (200, SSE): OpenApiResponse(OpenApiTypes.STR),
        },
        operation_id="answers_stream",
        tags=["ask"],
        description="Re-attach to an answer in flight: replays its events, then follows. " + STREAM_DOC,
    )
    async def get(self, request: Request, id: UUID) -> StreamingHttpResponse:
        """The events of an answer, from its beginning."""
        membership = self.principal.membership
        # A finished answer is shown as it may be read now; events kept from before could hold what may not.
        stored = await run_db(stored_events, membership=membership, pk=id)
        if stored is None:
            return await self._follow(request, id)

        return await stream_events(request._request, play_events(stored))

    @extend_schema(responses={204: None}, operation_id="answers_stop", tags=["ask"])
    async def delete(self, request: Request, id: UUID) -> Response:
        """Stop an answer, whoever reads it; others who wait for the same get it whole. One that has ended stays as it is."""
        membership = self.principal.membership
        try:
            in_flight = await Readers(membership=membership, request_id=id).stop()
        except (RedisError, OSError):
            in_flight = False  # what cannot be joined again does not go on either
        if not in_flight:
            await run_db(access_answer, membership, id)
        return Response(status=204)

    async def _follow(self, request: Request, id: UUID) -> StreamingHttpResponse:
        events = follow_events(membership=self.principal.membership, request_id=id)
        try:
            return await stream_events(request._request, events)
        except KeyError:
            raise not_found() from None
        except (RedisError, OSError):
            raise Problem(
                503,
                "cache-unavailable",
                "The cache does not answer, so the stream cannot be joined: read the answer in a moment.",
                headers={"Retry-After": "5"},
            ) from None
