"""An answer in one piece, for those who do not stream, and the passages alone."""

from collections.abc import Sequence
from contextlib import aclosing
from typing import Any
from uuid import UUID

from knowledge.access import access_collections
from knowledge.answering.answer import answer_question
from knowledge.answering.journey import Question, source_object
from knowledge.answering.passages import find_passages
from knowledge.config import AnswerConfig
from knowledge.embedding.spaces import corpus_state
from knowledge.llm.gateway import Gateway
from knowledge.retrieval.base import Filters
from ragsite.core.hops import run_db
from ragsite.core.observability import REQUEST_LATENCY, REQUESTS, Stopwatch
from ragsite.core.problems import Problem
from tenants.access import Principal


async def collect_answer(
    *, question: Question, principal: Principal, config: AnswerConfig, gateway: Gateway
) -> dict[str, Any]:
    """The whole answer object, from the same events.

    Raises:
        Problem: as ``answer_question``, and for an error event.
    """
    text, sources, done = "", [], {}
    stream = answer_question(question=question, principal=principal, config=config, gateway=gateway)
    async with aclosing(stream) as events:
        async for event in events:
            match event["type"]:
                case "sources":
                    sources = event["data"]
                case "answer_chunk":
                    text += event["data"]
                case "restart":
                    text = ""
                case "done":
                    done = event["data"]
                case "error":
                    problem = event["data"]
                    raise Problem(
                        problem["status"],
                        problem["type"].rsplit("/", 1)[-1],
                        problem["detail"],
                        headers={"Retry-After": "30"} if problem["status"] == 503 else {},
                    )
    return {**done, "answer": text, "sources": sources}


async def collect_sources(
    *,
    text: str,
    k: int | None,
    collections: Sequence[str],
    tags: Sequence[str],
    endpoint: str,
    principal: Principal,
    config: AnswerConfig,
) -> dict[str, Any]:
    """Retrieval alone: ``sources`` as in the answer object, ``timings`` in milliseconds by stage.

    Args:
        collections: slugs or ids; none: all of them.
        endpoint: by which the metrics tell the ways in apart.

    Raises:
        Problem: 404 for a collection that is not the asker's tenant's; 503 without embeddings.
    """
    watch = Stopwatch()

    def prepare() -> tuple[tuple[UUID, ...], int, str]:
        rows = access_collections(principal, collections)
        return tuple(row.pk for row in rows), *corpus_state()

    collection_ids, version, model = await run_db(prepare)
    passages = await find_passages(
        principal=principal,
        text=text,
        k=k or config.k,
        filters=Filters(collection_ids=collection_ids, tags=tuple(tags)),
        config=config,
        watch=watch,
        model=model,
        corpus_version=version,
    )
    watch.timings["total"] = watch.elapsed_ms
    REQUESTS.labels(endpoint, "success" if passages else "unanswered").inc()
    REQUEST_LATENCY.labels(endpoint).observe(watch.elapsed_ms / 1000)
    return {"sources": [source_object(passage) for passage in passages], "timings": watch.timings}
