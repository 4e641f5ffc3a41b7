"""A body of ``POST /v1/chat/completions``, as chat clients send it, made a question with what came before it.

What a server of this protocol does not know it ignores (``user``, ``metadata``, …), and what shapes a model's choice of
words (``temperature``, …) too, as long as it is a value of its kind; what would change the answer in a way that we do not
have (tools, images, several choices) is refused instead of being passed over.

System and developer messages are ignored: what an answer may say, and from what, is the tenant's to settle and is checked
sentence by sentence. A client's text among the instructions would loosen that, and in the search it would drown the
question.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rest_framework import serializers

from knowledge.api.openai.limits import TextLimit
from knowledge.api.question_shapes import QuestionForm
from knowledge.llm.base import Turn
from ragsite.core.problems import FieldProblem, Problem

MAX_MESSAGES = 1000
MAX_QUESTION_CHARS = 1000
MAX_TURN_CHARS = 4000
MAX_STOPS = 4
IGNORED_ROLES = ("system", "developer")


class OptionsForm(serializers.Serializer[Any]):
    """The request's own extension field, ``ragsite``."""

    k = QuestionForm().fields["k"]
    tags = QuestionForm().fields["tags"]
    cache = QuestionForm().fields["cache"]


@dataclass(frozen=True)
class ChatRequest:
    """``turns`` are the conversation before the question, oldest first; ``options`` are ``k``, ``tags`` and ``cache``.

    ``max_tokens``: of the answer, ``None`` without a limit of the client's own; ``stops``: strings that it ends before.
    """

    model: str
    question: str
    turns: tuple[Turn, ...] = ()
    stream: bool = False
    include_usage: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    max_tokens: int | None = None
    stops: tuple[str, ...] = ()

    def text_limit(self) -> TextLimit:
        return TextLimit(tokens=self.max_tokens, stops=self.stops)


def read_chat_request(data: Any) -> ChatRequest:
    """Raises the 400 problem that names the parameter."""
    if not isinstance(data, dict):
        raise _refused("", "Send a JSON object with “model” and “messages”.")
    given = {name: value for name, value in data.items() if value is not None}
    _refuse_what_we_have_not(given)
    model = given.get("model")
    if not isinstance(model, str) or not model.strip():
        raise _refused("model", "Name a model: GET /v1/models lists them, “all” is everything you may read.")
    stream = given.get("stream", False)
    if not isinstance(stream, bool):
        raise _refused("stream", "true or false.")
    _check_numbers(given)
    question, turns = _read_messages(given.get("messages"))
    return ChatRequest(
        model=model.strip(),
        question=question,
        turns=turns,
        stream=stream,
        include_usage=_read_include_usage(given.get("stream_options"), stream=stream),
        options=_read_options(given.get("ragsite", {})),
        max_tokens=_read_max_tokens(given),
        stops=_read_stops(given.get("stop")),
    )


def _refused(param: str, detail: str) -> Problem:
    return Problem(400, "invalid-value", detail, errors=[FieldProblem(param, detail)])


_UNSUPPORTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "n": (lambda n: n != 1 or isinstance(n, bool), "One choice is all there is: leave “n” out."),
    "tools": (bool, "Tools are not supported: the documents are searched for every question."),
    "functions": (bool, "Functions are not supported: the documents are searched for every question."),
    "tool_choice": (lambda choice: choice not in ("none", "auto"), "Tools are not supported."),
    "function_call": (lambda choice: choice not in ("none", "auto"), "Functions are not supported."),
    "response_format": (
        lambda wanted: not isinstance(wanted, dict) or wanted.get("type", "text") != "text",
        "Answers are text: leave “response_format” out.",
    ),
    "modalities": (lambda wanted: wanted != ["text"], "Answers are text: leave “modalities” out."),
    "audio": (bool, "Answers are text: leave “audio” out."),
    "logprobs": (bool, "There are no log probabilities: leave “logprobs” out."),
    "top_logprobs": (bool, "There are no log probabilities: leave “top_logprobs” out."),
}
# What is passed over, with the least and the most that it may be.
_NUMBERS = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
}


def _refuse_what_we_have_not(given: dict[str, Any]) -> None:
    for name, (is_wanted, detail) in _UNSUPPORTED.items():
        if name in given and is_wanted(given[name]):
            raise Problem(400, "unsupported-value", detail, errors=[FieldProblem(name, detail)])


def _check_numbers(given: dict[str, Any]) -> None:
    for name, (least, most) in _NUMBERS.items():
        value = given.get(name, least)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise _refused(name, f"A number from {least} to {most}.")


def _read_max_tokens(given: dict[str, Any]) -> int | None:
    """The lower one of both names; the older one is of the clients of before."""
    limits = {name: given[name] for name in ("max_tokens", "max_completion_tokens") if name in given}
    for name, value in limits.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise _refused(name, "A whole number of tokens, 1 or more.")
    return min(limits.values(), default=None)


def _read_stops(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else [] if value is None else value
    if (
        not isinstance(stops, list)
        or len(stops) > MAX_STOPS
        or not all(isinstance(stop, str) and stop for stop in stops)
    ):
        raise _refused("stop", f"A text, or a list of up to {MAX_STOPS} texts, none of them empty.")
    return tuple(stops)


def _read_include_usage(options: Any, *, stream: bool) -> bool:
    if options is None:
        return False
    if not isinstance(options, dict):
        raise _refused("stream_options", "An object, for instance {“include_usage”: true}.")
    if not stream:
        raise _refused("stream_options", "Only with “stream”: true.")
    wanted = options.get("include_usage")
    if wanted is not None and not isinstance(wanted, bool):
        raise _refused("stream_options.include_usage", "true or false.")
    return bool(wanted)


def _read_options(value: Any) -> dict[str, Any]:
    form = OptionsForm(data=value)
    if not form.is_valid():
        errors = [
            FieldProblem(f"ragsite.{name}" if name != "non_field_errors" else "ragsite", str(told))
            for name, messages in form.errors.items()
            for told in (messages if isinstance(messages, list) else [messages])
        ]
        raise Problem(400, "invalid-value", "Some values cannot be used; see errors.", errors=errors)
    options: dict[str, Any] = form.validated_data
    return options


def _read_messages(messages: Any) -> tuple[str, tuple[Turn, ...]]:
    """The question and the turns before it.

    Messages of one side that follow each other are one. What an assistant says before the first question is a greeting.
    """
    if not isinstance(messages, list) or not messages:
        raise _refused("messages", "Send at least one message of the role “user”.")
    if len(messages) > MAX_MESSAGES:
        raise _refused("messages", f"At most {MAX_MESSAGES} messages.")
    turns: list[Turn] = []
    asked: list[str] = []
    said: list[str] = []
    for at, message in enumerate(messages):
        role, text = _read_message(message, f"messages[{at}]")
        if role == "user":
            if said:
                turns.append(_turn(asked, said))
                asked, said = [], []
            asked.append(text)
        elif role == "assistant" and asked and text.strip():
            said.append(text)
    if said or not asked:
        raise _refused("messages", "The last message must be the user's: it is the question.")
    question = "\n".join(asked).strip()
    if len(question) > MAX_QUESTION_CHARS:
        question = asked[-1].strip()
    if not 3 <= len(question) <= MAX_QUESTION_CHARS:
        raise _refused(
            f"messages[{len(messages) - 1}].content",
            f"A question has 3 to {MAX_QUESTION_CHARS:,} characters; this one has {len(question):,}.",
        )
    return question, tuple(turns)


def _turn(asked: list[str], said: list[str]) -> Turn:
    return Turn(
        question="\n".join(asked).strip()[:MAX_QUESTION_CHARS] or "…",
        answer="\n".join(said).strip()[:MAX_TURN_CHARS],
    )


def _read_message(message: Any, param: str) -> tuple[str, str]:
    if not isinstance(message, dict):
        raise _refused(param, "A message is an object with “role” and “content”.")
    role = message.get("role")
    if role in IGNORED_ROLES:
        return role, ""
    if role in ("tool", "function") or message.get("tool_calls") or message.get("function_call"):
        raise _refused(f"{param}.role", "Tools are not supported: send the user's and the assistant's texts.")
    if role not in ("user", "assistant"):
        raise _refused(f"{param}.role", "One of: system, developer, user, assistant.")
    return role, _read_content(message.get("content"), role, f"{param}.content")


def _read_content(content: Any, role: str, param: str) -> str:
    if content is None and role == "assistant":
        return ""
    if isinstance(content, str):
        return _clean(content, param)
    if not isinstance(content, list):
        raise _refused(param, "A text, or a list of parts of the type “text”.")
    texts = []
    for at, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "refusal" and role == "assistant":
            continue
        if kind != "text" or not isinstance(part.get("text"), str):
            raise _refused(
                f"{param}[{at}].type", "Only parts of the type “text” are read: no images, sound or files."
            )
        texts.append(part["text"])
    return _clean("\n".join(texts), param)


def _clean(text: str, param: str) -> str:
    if "\0" in text:
        raise _refused(param, "A text holds no NUL characters.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _refused(param, "The text holds half of a surrogate pair, which is no character.") from None
    return text
