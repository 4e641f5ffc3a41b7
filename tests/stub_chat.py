"""OpenAI's chat-completions protocol, and Azure's dialect of it, as `tests/stub_provider.py` speaks them."""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.stub_validation import Invalid

FIELDS = {
    "model", "messages", "max_tokens", "max_completion_tokens", "stream", "stream_options", "temperature", "top_p", "n",
    "stop", "seed", "user", "response_format", "store", "metadata", "reasoning_effort",
}  # fmt: skip
STOPS = {"end_turn": "stop", "max_tokens": "length", "refusal": "stop"}
CODES = {
    401: "invalid_api_key",
    404: "model_not_found",
    429: "rate_limit_exceeded",
    413: "context_length_exceeded",
}
_AZURE = re.compile(r"/openai/deployments/([^/]+)/chat/completions$")
_DOCUMENT = re.compile(r'<document number="(\d+)">\n.*?\n\n(.*?)\n</document>', re.S)


def is_chat(target: str) -> bool:
    path = urlsplit(target).path
    return path == "/v1/chat/completions" or bool(_AZURE.search(path))


def validate_chat(*, target: str, headers: dict[str, str], body: dict[str, Any]) -> None:
    """Refuses what the real servers refuse, as far as this project could send it."""
    parts = urlsplit(target)
    azure = _AZURE.search(parts.path)
    if azure:
        if not headers.get("api-key"):
            raise Invalid("Access denied due to missing subscription key.", 401)
        if not re.fullmatch(
            r"\d{4}-\d{2}-\d{2}(-preview)?", parse_qs(parts.query).get("api-version", [""])[0]
        ):
            raise Invalid("Missing required query parameter: api-version")
        if azure.group(1).startswith("gone"):
            raise Invalid("The API deployment for this resource does not exist.", 404)
    elif not headers.get("authorization", "").startswith("Bearer "):
        raise Invalid("You didn't provide an API key.", 401)
    for name in sorted(set(body) - FIELDS):
        raise Invalid(f"Unrecognized request argument supplied: {name}")
    if {"max_tokens", "max_completion_tokens"} <= set(body):
        raise Invalid("Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.")
    if "stream_options" in body and not body.get("stream"):
        raise Invalid("The 'stream_options' parameter is only allowed when 'stream' is enabled.")
    if not body.get("messages"):
        raise Invalid("[] is too short - 'messages'")
    for at, message in enumerate(body["messages"]):
        if message.get("role") not in ("system", "developer", "user", "assistant"):
            raise Invalid(f"Invalid value for messages[{at}].role")
        if not isinstance(message.get("content"), str) or not message["content"]:
            raise Invalid(f"Invalid type for 'messages[{at}].content'")


def chat_error(*, status: int, message: str, code: str | None, target: str) -> dict[str, Any]:
    kind = {401: "invalid_request_error", 429: "rate_limit_error"}.get(
        status, "server_error" if status >= 500 else "invalid_request_error"
    )
    error: dict[str, Any] = {
        "message": message,
        "type": kind,
        "param": None,
        "code": code or CODES.get(status),
    }
    if code == "content_filter" and _AZURE.search(urlsplit(target).path):
        error |= {
            "status": status,
            "innererror": {
                "code": "ResponsibleAIPolicyViolation",
                "content_filter_result": {"violence": {"filtered": True, "severity": "medium"}},
            },
        }
    return {"error": error}


def chat_text(blocks: Any) -> str:
    """An answer's blocks with their citations as numbers in brackets, which is how these models cite."""
    shown = ""
    for block in blocks:
        marks = "".join(f"[{index + 1}]" for index, _, _ in block.cites)
        shown += f"{block.text} {marks}" if marks else block.text
    return shown


def echo_chat(body: dict[str, Any]) -> str:
    """The first lines of the documents, cited; without documents the last message."""
    content = body["messages"][-1]["content"]
    documents = _DOCUMENT.findall(content)
    if not documents:
        return str(content)
    lines = [
        f"{' '.join(text.strip().splitlines()[-1].split())} [{number}]" for number, text in documents[:2]
    ]
    return "\n".join(lines)


def chat_usage(body: dict[str, Any], text: str, *, cached: int) -> dict[str, Any]:
    prompt = sum(len(message["content"].split()) for message in body["messages"])
    completion = len(text.split()) + 1
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": min(cached, prompt), "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def chat_message(*, body: dict[str, Any], target: str, text: str, stop: str, number: int) -> dict[str, Any]:
    refused = stop == "refusal"
    message = {
        "role": "assistant",
        "content": None if refused else text,
        "refusal": text if refused else None,
    }
    return {
        "id": f"chatcmpl-stub{number:05}",
        "object": "chat.completion",
        "created": 1_780_000_000,
        "model": _model(body, target),
        "choices": [
            {"index": 0, "message": message, "logprobs": None, "finish_reason": STOPS.get(stop, stop)}
        ],
        "usage": chat_usage(body, text, cached=0),
    }


def chat_chunks(
    *, body: dict[str, Any], target: str, text: str, stop: str, number: int, cached: int
) -> Iterator[tuple[bool, bytes]]:
    """`(whether it is a piece of the text, bytes)` of every event, the closing `[DONE]` included."""
    azure = bool(_AZURE.search(urlsplit(target).path))
    head = {
        "id": f"chatcmpl-stub{number:05}",
        "object": "chat.completion.chunk",
        "created": 1_780_000_000,
        "model": _model(body, target),
    }
    wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
    rest: dict[str, Any] = {"usage": None} if wants_usage else {}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _data(head | {"choices": [choice]} | rest)

    if azure:
        filtered = {
            "prompt_index": 0,
            "content_filter_results": {"hate": {"filtered": False, "severity": "safe"}},
        }
        blank = {"choices": [], "created": 0, "id": "", "model": "", "object": ""}
        yield False, _data(blank | {"prompt_filter_results": [filtered]})
    yield False, chunk({"role": "assistant", "content": "", "refusal": None})
    field = "refusal" if stop == "refusal" else "content"
    for at in range(0, len(text), 12):
        yield True, chunk({field: text[at : at + 12]})
    yield False, chunk({}, STOPS.get(stop, stop))
    if wants_usage:
        yield False, _data(head | {"choices": [], "usage": chat_usage(body, text, cached=cached)})
    yield False, b"data: [DONE]\n\n"


def stream_error(message: str) -> bytes:
    return _data(chat_error(status=500, message=message, code=None, target=""))


def _model(body: dict[str, Any], target: str) -> str:
    """The servers report a dated snapshot of what was asked for; behind a deployment there is one, too."""
    azure = _AZURE.search(urlsplit(target).path)
    return f"{'gpt-4o' if azure else body.get('model', 'gpt-4o')}-2024-08-06"


def _data(value: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()
