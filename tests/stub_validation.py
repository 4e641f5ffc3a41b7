"""The checks that Anthropic's Messages API makes of a request, as far as this project could fail them."""

from typing import Any

FIELDS = {
    "model", "messages", "max_tokens", "system", "stream", "metadata", "stop_sequences", "temperature",
    "top_p", "top_k", "thinking", "output_config", "tools", "tool_choice", "service_tier", "container",
    "cache_control", "inference_geo", "diagnostics", "speed",
}  # fmt: skip
THINKING = {  # which thinking types a model takes; models that are not named here are not checked
    "claude-haiku-5-5": {"adaptive", "disabled"},
    "claude-sonnet-5-5": {"adaptive", "between_tools"},
    "claude-opus-5-5": {"adaptive"},
    "claude-haiku-4-5": {"enabled", "disabled"},
}
NO_EFFORT = {"claude-haiku-4-5"}


class Invalid(Exception):
    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def find_documents(body: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for message in body["messages"]:
        if isinstance(message["content"], list):
            found += [block for block in message["content"] if block["type"] == "document"]
    return found


def validate_request(*, headers: dict[str, str], body: dict[str, Any]) -> None:
    """Refuses what the real API refuses, as far as this project could send it."""
    if not headers.get("x-api-key") and not headers.get("authorization", "").startswith("Bearer "):
        raise Invalid("x-api-key header is required", 401)
    if "anthropic-version" not in headers:
        raise Invalid("anthropic-version: header is required")
    for name in sorted(set(body) - FIELDS):
        raise Invalid(f"{name}: Extra inputs are not permitted")
    for name in ("model", "max_tokens", "messages"):
        if name not in body:
            raise Invalid(f"{name}: Field required")
    if not isinstance(body["model"], str) or not body["model"].startswith("claude-"):
        raise Invalid(f"model: {body['model']}", 404)
    if not isinstance(body["max_tokens"], int) or body["max_tokens"] < 1:
        raise Invalid("max_tokens: Input should be greater than or equal to 1")
    model = body["model"]
    if {"temperature", "top_p", "top_k"} & set(body) and model in THINKING and model != "claude-haiku-4-5":
        raise Invalid("`temperature` may not be set for this model")
    thinking = (body.get("thinking") or {}).get("type")
    if thinking is not None and thinking not in THINKING.get(model, {thinking}):
        raise Invalid(f'"thinking.type.{thinking}" is not supported for this model')
    if "output_config" in body and model in NO_EFFORT:
        raise Invalid("This model does not support the effort parameter.")
    _validate_system(body.get("system"))
    _validate_messages(body["messages"])


def _validate_system(system: Any) -> None:
    if system is None or isinstance(system, str):
        return
    for index, block in enumerate(system):
        if block.get("type") != "text" or not block.get("text"):
            raise Invalid(f"system.{index}: text content blocks must be non-empty")


def _validate_messages(messages: Any) -> None:
    if not isinstance(messages, list) or not messages:
        raise Invalid("messages: at least one message is required")
    if messages[0].get("role") != "user":
        raise Invalid("messages: first message must use the user role")
    if messages[-1].get("role") != "user":
        raise Invalid("This model does not support assistant message prefill.")
    for at, message in enumerate(messages):
        if set(message) != {"role", "content"} or message["role"] not in ("user", "assistant"):
            raise Invalid(f"messages.{at}: role and content are required, and nothing else")
        if isinstance(message["content"], str):
            if not message["content"].strip():
                raise Invalid(f"messages.{at}: text content must be non-empty")
            continue
        for number, block in enumerate(message["content"]):
            _validate_block(block, f"messages.{at}.content.{number}")
    documents = find_documents({"messages": messages})
    if len({bool((d.get("citations") or {}).get("enabled")) for d in documents}) > 1:
        raise Invalid("citations must be enabled on all or none of the documents in a request")


def _validate_block(block: dict[str, Any], where: str) -> None:
    allowed = {
        "text": {"type", "text", "cache_control", "citations"},
        "document": {"type", "source", "title", "context", "citations", "cache_control"},
    }.get(block.get("type", ""))
    if allowed is None:
        raise Invalid(
            f"{where}: Input tag '{block.get('type')}' found does not match any of the expected tags"
        )
    for name in sorted(set(block) - allowed):
        raise Invalid(f"{where}.{name}: Extra inputs are not permitted")
    if block["type"] == "text":
        if not block.get("text", "").strip():
            raise Invalid(f"{where}: text content blocks must contain non-whitespace text")
        return
    source = block.get("source") or {}
    if source.get("type") != "content" or not source.get("content"):
        raise Invalid(f"{where}.source: only non-empty custom content is known here")
    for number, part in enumerate(source["content"]):
        if part.get("type") != "text":
            raise Invalid(f"{where}.source.content.{number}: only text is known here")
        _validate_block(part, f"{where}.source.content.{number}")
