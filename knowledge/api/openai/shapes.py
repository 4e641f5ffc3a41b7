"""Answers in the shapes of OpenAI's chat completions."""

import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from knowledge.answering.events import Event
from knowledge.api.openai.limits import TextLimit
from ragsite.core.problems import Problem
from tenants.rest import dump_json

SHOWN = (
    "request_id",
    "answered",
    "grounded",
    "confidence",
    "cache",
    "provider",
    "model",
    "fallback",
    "citations",
    "marks",
)
BEGINS_AGAIN = "\n\n---\n\n"


def completion_of(answer: dict[str, Any], *, model: str, limit: TextLimit) -> dict[str, Any]:
    """An answer object as a ``chat.completion``."""
    text = limit.take(answer["answer"]) + limit.finish()
    return {
        "id": _id(answer["request_id"]),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": text,
                    "refusal": None,
                    "ragsite": _extension(answer, sources=answer["sources"], limit=limit),
                },
                "logprobs": None,
                "finish_reason": _finish_reason(answer, limit=limit),
            }
        ],
        "usage": _usage(answer),
    }


class ChunkWriter:
    """Makes ``data:`` lines of ``chat.completion.chunk`` from an answer's events.

    What was sent cannot be called back. Where another model begins again, its text follows behind a line, and the
    offsets of citations and marks count from the beginning of all that was sent; so does the limit.
    """

    def __init__(self, *, request_id: UUID, model: str, include_usage: bool, limit: TextLimit) -> None:
        self._head = {
            "id": _id(request_id),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }
        self._include_usage = include_usage
        self._sources: list[dict[str, Any]] = []
        self._limit = limit
        self._told = self._offset = 0

    def write(self, event: Event) -> str:
        return "".join(f"data: {data}\n\n" for data in self._write(event))

    def _write(self, event: Event) -> Iterator[str]:
        match event["type"]:
            case "sources":
                self._sources = event["data"]
                yield self._chunk({"role": "assistant", "content": "", "refusal": None})
            case "answer_chunk":
                yield from self._text(event["data"])
            case "restart" if self._told:
                yield from self._text(BEGINS_AGAIN)
                self._offset = self._told
            case "done":
                if rest := self._limit.finish():
                    yield self._chunk({"content": rest})
                done = event["data"]
                extension = _extension(done, sources=self._sources, limit=self._limit, offset=self._offset)
                reason = _finish_reason(done, limit=self._limit)
                yield self._chunk({"ragsite": extension}, finish_reason=reason)
                if self._include_usage:
                    yield dump_json({**self._head, "choices": [], "usage": _usage(done)})
                yield "[DONE]"
            case "error":
                told = event["data"]
                problem = Problem(told["status"], told["type"].rsplit("/", 1)[-1], told["detail"])
                yield dump_json(problem.openai_document())

    def _text(self, text: str) -> Iterator[str]:
        self._told += len(text)
        if allowed := self._limit.take(text):
            yield self._chunk({"content": allowed})

    def _chunk(self, delta: dict[str, Any], *, finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        usage = {"usage": None} if self._include_usage else {}
        return dump_json({**self._head, "choices": [choice], **usage})


def _id(request_id: UUID | str) -> str:
    return f"chatcmpl-{request_id}"


def _finish_reason(answer: dict[str, Any], *, limit: TextLimit) -> str:
    is_cut_off = any(mark["reason"] == "cut_off" for mark in answer["marks"])
    return limit.reason or ("length" if is_cut_off else "stop")


def _usage(answer: dict[str, Any]) -> dict[str, int]:
    """Zeros where no model was called: from the cache, and by quoting."""
    asked, answered = answer["usage"]["input_tokens"], answer["usage"]["output_tokens"]
    return {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}


def _extension(
    answer: dict[str, Any], *, sources: list[dict[str, Any]], limit: TextLimit, offset: int = 0
) -> dict[str, Any]:
    """The field ``ragsite``: what the answer object says beside its text."""
    shown = {name: answer[name] for name in SHOWN}
    for name in ("citations", "marks"):
        shown[name] = limit.clip(
            [{**each, "start": each["start"] + offset, "end": each["end"] + offset} for each in answer[name]]
        )
    return {
        **shown,
        "cost_usd": answer["usage"]["cost_usd"],
        "sources": sources,
        "warnings": list(answer.get("warnings", ())),
    }
