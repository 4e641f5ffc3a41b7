"""``POST /v1/chat/completions``: a question in OpenAI's protocol, by the same way as ``/api/v1/query``."""

from typing import Any
from uuid import UUID

from django.http import StreamingHttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from knowledge.answering.answer import answer_question
from knowledge.answering.collect import collect_answer
from knowledge.answering.journey import Question, new_question_id
from knowledge.answering.services import gateway
from knowledge.answering.spending import usual_tokens
from knowledge.api.openai.base import ASK, OpenAIView, find_model
from knowledge.api.openai.request import ChatRequest, read_chat_request
from knowledge.api.openai.shapes import ChunkWriter, completion_of
from knowledge.api.replay import AskingView
from knowledge.api.streaming import SSE, AnyFormat, play_events, send_events
from knowledge.config import answer_config
from ragsite.core.hops import run_db

ENDPOINT = "chat"


@extend_schema(exclude=True)  # OpenAI's own reference describes it
class ChatCompletionsView(AskingView, OpenAIView):
    abilities = {"POST": ASK}
    content_negotiation_class = AnyFormat

    async def post(self, request: Request) -> Response | StreamingHttpResponse:
        chat = read_chat_request(request.data)
        config = answer_config().limited_to(chat.max_tokens)
        model, collections = await run_db(find_model, self.principal, chat.model)
        grant = await self.limited(ENDPOINT, tokens=usual_tokens(config))
        question = Question(
            request_id=new_question_id(request._request),
            text=chat.question,
            endpoint=ENDPOINT,
            k=chat.options.get("k"),
            collections=collections,
            tags=tuple(chat.options.get("tags", ())),
            turns=chat.turns,
            use_cache=chat.options["cache"],
            grant=grant,
        )
        self.reference = question.request_id
        asking: dict[str, Any] = {"principal": self.principal, "config": config, "gateway": gateway()}
        if not chat.stream:
            answer = await collect_answer(question=question, **asking)
            return Response(completion_of(answer, model=model["id"], limit=chat.text_limit()))
        writer = _writer(chat, request_id=question.request_id)
        events = answer_question(question=question, **asking)
        return await send_events(events, write=writer.write, content_type=SSE)

    async def replay(self, reference: UUID) -> Response | StreamingHttpResponse:
        chat = read_chat_request(self.request.data)
        if not chat.stream:
            answer = await self.read_again(reference)
            return Response(completion_of(answer, model=chat.model, limit=chat.text_limit()))
        writer, events = _writer(chat, request_id=reference), await self.events_again(reference)
        return await send_events(play_events(events), write=writer.write, content_type=SSE)


def _writer(chat: ChatRequest, *, request_id: UUID) -> ChunkWriter:
    return ChunkWriter(
        request_id=request_id,
        model=chat.model,
        include_usage=chat.include_usage,
        limit=chat.text_limit(),
    )
