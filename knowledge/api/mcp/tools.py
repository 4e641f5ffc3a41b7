"""What ``/mcp`` offers: ask, search and open_document, by the same ways and under the same limits as the REST API."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from rest_framework import serializers

from knowledge.access import access_document
from knowledge.answering.collect import collect_answer, collect_sources
from knowledge.answering.services import gateway
from knowledge.answering.spending import usual_tokens
from knowledge.api.question_shapes import QuestionForm, SearchForm, question_of
from knowledge.config import answer_config
from ragsite.core.hops import run_db
from tenants.access import Principal
from tenants.audit import record_by
from tenants.rates import Grant
from tenants.rest import dump_json

ASK, SEARCH, OPEN = "mcp", "mcp_search", "mcp_open"
LENGTH, MAX_LENGTH = 20_000, 50_000


@dataclass(frozen=True)
class Caller:
    """Who calls, and the view's way to take a request from their limits."""

    request: HttpRequest
    principal: Principal
    limited: Callable[..., Awaitable[Grant]]


@dataclass(frozen=True)
class Told:
    """A tool's result: for a model to read, and for a program."""

    text: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Tool:
    title: str
    description: str
    schema: dict[str, Any]
    run: Callable[[Caller, dict[str, Any]], Awaitable[Told]]


class OpenForm(serializers.Serializer[Any]):
    document = serializers.UUIDField()
    start = serializers.IntegerField(min_value=0, max_value=2**31 - 1, default=0)
    length = serializers.IntegerField(min_value=1, max_value=MAX_LENGTH, default=LENGTH)


def _read(form: type[serializers.Serializer[Any]], arguments: dict[str, Any]) -> dict[str, Any]:
    read = form(data=arguments)
    read.is_valid(raise_exception=True)
    data: dict[str, Any] = read.validated_data
    return data


async def _ask(caller: Caller, arguments: dict[str, Any]) -> Told:
    form, config = _read(QuestionForm, arguments), answer_config()
    grant = await caller.limited(ASK, tokens=usual_tokens(config))
    question = question_of(form, request=caller.request, endpoint=ASK, grant=grant)
    answer = await collect_answer(
        question=question, principal=caller.principal, config=config, gateway=gateway()
    )
    sources = "\n".join(
        f"[{s['n']}] {s['title']} ({s['uri']}), document {s['document_id']}" for s in answer["sources"]
    )
    return _told(f"{answer['answer']}\n\nSources:\n{sources or 'none'}", answer)


async def _search(caller: Caller, arguments: dict[str, Any]) -> Told:
    form = _read(SearchForm, arguments)
    await caller.limited(SEARCH)
    found = await collect_sources(
        text=form["question"],
        k=form.get("k"),
        collections=form.get("collections", ()),
        tags=form.get("tags", ()),
        endpoint=SEARCH,
        principal=caller.principal,
        config=answer_config(),
    )
    passages = [
        f"[{s['n']}] {s['title']} ({s['uri']}), document {s['document_id']}, from {s['start']}\n{s['text']}"
        for s in found["sources"]
    ]
    return _told("\n\n".join(passages) or "Nothing was found.", found)


async def _open(caller: Caller, arguments: dict[str, Any]) -> Told:
    form = _read(OpenForm, arguments)
    await caller.limited(OPEN)

    def read() -> dict[str, Any]:
        document = access_document(caller.principal.membership, form["document"])
        record_by(caller.principal, "document.read", document, {"title": document.title})
        start, end = form["start"], form["start"] + form["length"]
        text = document.text[start:end]
        return {
            "document_id": str(document.pk),
            "title": document.title,
            "uri": document.uri,
            "collection": document.collection.slug,
            "text": text,
            "start": start,
            "end": start + len(text),
            "total": len(document.text),
        }

    found = await run_db(read)
    more = (
        ""
        if found["end"] >= found["total"]
        else f"\n\n(It goes on: start at {found['end']} of {found['total']}.)"
    )
    return _told(f"# {found['title']}\n\n{found['text']}{more}", found)


def _told(text: str, data: dict[str, Any]) -> Told:
    return Told(text=text, data=json.loads(dump_json(data)))  # UUIDs and times as texts


_NARROW = {
    "k": {"type": "integer", "minimum": 1, "maximum": 20, "description": "How many passages; 5 unless told."},
    "collections": {
        "type": "array",
        "items": {"type": "string"},
        "description": "Only these collections, by slug or id.",
    },
    "tags": {
        "type": "array",
        "items": {"type": "string"},
        "description": "Only documents with one of these tags.",
    },
}


def _schema(properties: dict[str, Any], *, required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [required]}


def _question(description: str) -> dict[str, Any]:
    return {"type": "string", "minLength": 3, "maxLength": 1000, "description": description}


TOOLS = {
    "ask": Tool(
        title="Ask the documents",
        description="Answers a question from the team's documents, with citations; says so when they do not hold it.",
        schema=_schema(
            {
                "question": _question("One question in full words."),
                **_NARROW,
                "conversation": {
                    "type": "string",
                    "format": "uuid",
                    "description": "The `conversation` of an earlier answer, when this is a follow-up.",
                },
                "cache": {"type": "boolean", "description": "false asks afresh."},
            },
            required="question",
        ),
        run=_ask,
    ),
    "search": Tool(
        title="Search the documents",
        description="Finds the passages nearest to a question or to words, without an answer.",
        schema=_schema(
            {"question": _question("A question, names or words."), **_NARROW}, required="question"
        ),
        run=_search,
    ),
    "open_document": Tool(
        title="Open a document",
        description="The text of a document that `ask` or `search` named, from an offset on.",
        schema=_schema(
            {
                "document": {"type": "string", "format": "uuid", "description": "A source's `document_id`."},
                "start": {"type": "integer", "minimum": 0, "description": "Offset in characters."},
                "length": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": MAX_LENGTH,
                    "description": "Characters.",
                },
            },
            required="document",
        ),
        run=_open,
    ),
}
