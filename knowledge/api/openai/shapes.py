"""Answers in the shapes of OpenAI's chat completions."""

import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from knowledge.answering.events import Event
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


def completion_of(answer: dict[str, Any], *, model: str) -> dict[str, Any]:
    """An answer object as a ``chat.completion``."""
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
                    "content": answer["answer"],
                    "refusal": None,
                    "ragsite": _extension(answer, sources=answer["sources"]),
                },
                "logprobs": None,
                "finish_reason": _finish_reason(answer),
            }
        ],
        "usage": _usage(answer),
    }


class ChunkWriter:
    """Makes ``data:`` lines of ``chat.completion.chunk`` from an answer's events.

    What was sent cannot be called back. Where another model begins again, its text follows behind a line, and the
    offsets of citations and marks count from the beginning of all that was sent.
    """

    def __init__(self, *, request_id: UUID, model: str, include_usage: bool) -> None:
        self._head = {
            "id": _id(request_id),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }
        self._include_usage = include_usage
        self._sources: list[dict[str, Any]] = []
        self._sent = self._offset = 0

    def write(self, event: Event) -> str:
        return "".join(f"data: {data}\n\n" for data in self._write(event))

    def _write(self, event: Event) -> Iterator[str]:
        match event["type"]:
            case "sources":
                self._sources = event["data"]
                yield self._chunk({"role": "assistant", "content": "", "refusal": None})
            case "answer_chunk":
                yield self._text(event["data"])
            case "restart" if self._sent:
                yield self._text(BEGINS_AGAIN)
                self._offset = self._sent
            case "done":
                done = event["data"]
                extension = _extension(done, sources=self._sources, offset=self._offset)
                yield self._chunk({"ragsite": extension}, finish_reason=_finish_reason(done))
                if self._include_usage:
                    yield dump_json({**self._head, "choices": [], "usage": _usage(done)})
                yield "[DONE]"
            case "error":
                told = event["data"]
                problem = Problem(told["status"], told["type"].rsplit("/", 1)[-1], told["detail"])
                yield dump_json(problem.openai_document())

    def _text(self, text: str) -> str:
        self._sent += len(text)
        return self._chunk({"content": text})

    def _chunk(self, delta: dict[str, Any], *, finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        usage = {"usage": None} if self._include_usage else {}
        return dump_json({**self._head, "choices": [choice], **usage})


def _id(request_id: UUID | str) -> str:
    return f"chatcmpl-{request_id}"


def _finish_reason(answer: dict[str, Any]) -> str:
    return "length" if any(mark["reason"] == "cut_off" for mark in answer["marks"]) else "stop"


def _usage(answer: dict[str, Any]) -> dict[str, int]:
    """Zeros where no model was called: from the cache, and by quoting."""
    asked, answered = answer["usage"]["input_tokens"], answer["usage"]["output_tokens"]
    return {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}


def _extension(answer: dict[str, Any], *, sources: list[dict[str, Any]], offset: int = 0) -> dict[str, Any]:
    """The field ``ragsite``: what the answer object says beside its text."""
    shown = {name: answer[name] for name in SHOWN}
    for name in ("citations", "marks"):
        shown[name] = [
            {**each, "start": each["start"] + offset, "end": each["end"] + offset} for each in answer[name]
        ]
    return {
        **shown,
        "cost_usd": answer["usage"]["cost_usd"],
        "sources": sources,
        "warnings": list(answer.get("warnings", ())),
    }
