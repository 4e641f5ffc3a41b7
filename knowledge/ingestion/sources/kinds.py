"""What every kind of source says of itself: where it lies, what may be chosen, which secrets it takes."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_args
from uuid import UUID

from django.utils.functional import Promise
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from knowledge.ingestion.sources.base import SourceConnector, SourceError
from knowledge.models import Source
from ragsite.core.problems import FieldProblem, Problem
from ragsite.core.secrets import SecretLost, decrypt_secret, encrypt_secret

Label = str | Promise
MAX_PATTERNS = 50


class Options(BaseModel):
    """What is chosen for a source beside its place: a kind's own model inherits this. Stored with the source as JSON."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        str_strip_whitespace=True,
        str_max_length=20_000,
        hide_input_in_errors=True,
    )


class Credentials(Options):
    """What a source proves itself with; every field is a ``SecretStr`` whose empty value means that it is not given."""

    def values(self) -> dict[str, str]:
        """The secrets that are given, in the clear."""
        found = {name: getattr(self, name).get_secret_value() for name in type(self).model_fields}
        return {name: value for name, value in found.items() if value}


class NoCredentials(Credentials):
    """For places that ask for none."""


def option(title: Label, hint: Label = "", *, default: Any = "", widget: str = "", **rules: Any) -> Any:
    """A field of ``Options`` or ``Credentials`` with what the form says of it.

    Args:
        widget: how the form shows it where its type does not say: ``text`` (several lines), for a secret also ``plain``.
        rules: pydantic's own, ``max_length`` for instance.
    """
    shown: Any = {"title": title, "hint": hint, "widget": widget}
    return Field(default=default, json_schema_extra={"shown": shown}, **rules)


def patterns(title: Label, hint: Label) -> Any:
    """A field of file patterns, one a line in the form."""
    return option(title, hint, default=(), max_length=MAX_PATTERNS)


@dataclass(frozen=True)
class SourceKind:
    """A kind of source.

    Attributes:
        kind: a value of ``Source.Kind``.
        title: what the form and the pages call it.
        place: what its path is called; empty: it has none.
        read_place: the path as it is stored, from what was typed and the options. Raises SourceError with what is wrong.
        fit_together: of the path and the credentials, the field of those that does not go with the path, and why.
        secrets_for: whom the credentials are given for; when that changes they are dropped.
        connect: the connector of a source whose options hold. Raises SourceError.
        forget: of a tenant's and a source's id, gives back what this machine keeps for a source that is gone.
    """

    kind: str
    title: Label
    place: Label
    hint: Label
    example: str
    read_place: Callable[[str, Any], str]
    connect: Callable[[Source], SourceConnector]
    options: type[Options] = Options
    credentials: type[Credentials] = NoCredentials
    fit_together: Callable[[str, Any], tuple[str, str]] = lambda path, credentials: ("", "")
    secrets_for: Callable[[str, Any], str] = lambda path, options: path
    forget: Callable[[UUID, UUID], None] = lambda tenant_id, source_id: None


@dataclass(frozen=True)
class ShownField:
    """A field of a kind's options or credentials, for a form.

    Attributes:
        name: with its group: ``options.branch``.
        widget: ``line``, ``text``, ``lines`` (a list), ``check``, ``number``; ``secret``, ``secret-text`` (several lines),
            ``secret-plain`` (may be seen while it is typed).
        value: as it stands in the form; of secrets always empty.
    """

    name: str
    title: Label
    hint: Label
    widget: str
    value: Any = field(default="", repr=False)


_Model = TypeVar("_Model", bound=Options)


def _widget(annotation: Any, named: str) -> str:
    if annotation is SecretStr:
        return f"secret-{named}" if named else "secret"
    if annotation is bool:
        return "check"
    if int in (annotation, *get_args(annotation)):
        return "number"
    return "lines" if getattr(annotation, "__origin__", None) is tuple else named or "line"


def shown_fields(model: type[Options], group: str, values: Mapping[str, Any]) -> list[ShownField]:
    """The fields of a model in its order."""
    rows = []
    for name, info in model.model_fields.items():
        extra = info.json_schema_extra
        shown: Any = extra.get("shown", {}) if isinstance(extra, dict) else {}
        widget = _widget(info.annotation, shown.get("widget", ""))
        value = "" if widget.startswith("secret") else values.get(name, info.default)
        if widget == "lines" and not isinstance(value, str):
            value = "\n".join(str(line) for line in value or ())
        rows.append(
            ShownField(
                name=f"{group}.{name}",
                title=shown.get("title") or name,
                hint=shown.get("hint", ""),
                widget=widget,
                value=value,
            )
        )
    return rows


def typed_fields(model: type[Options], group: str, posted: Mapping[str, Any]) -> dict[str, Any]:
    """A model's values as a form was filled in, to be validated. Secrets that were left empty are left out."""
    found: dict[str, Any] = {}
    for row in shown_fields(model, group, {}):
        name, text = row.name.partition(".")[2], str(posted.get(row.name, ""))
        match row.widget:
            case "check":
                found[name] = bool(text)
            case "lines":
                found[name] = [line.strip() for line in text.splitlines() if line.strip()]
            case "number" | "secret" | "secret-text" | "secret-plain":
                if text.strip():
                    found[name] = text
            case _:
                found[name] = text
    return found


def read_model(model: type[_Model], group: str, values: Any, *, kind: Label) -> _Model:
    """Values that were given, as a kind's model.

    Raises:
        Problem: 400 whose errors name the fields (``options.branch``) and never repeat a value.
    """
    if not isinstance(values, Mapping):
        raise _wrong([FieldProblem(group, "Give an object of names and values.")])
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        found = []
        for each in error.errors(include_url=False, include_input=False):
            words = each["msg"].removeprefix("Value error, ")
            if each["type"] == "extra_forbidden":
                known = ", ".join(model.model_fields)
                words = f"A source of the kind “{kind}” does not know this: " + (
                    f"give of {known}." if known else "leave it out."
                )
            found.append(FieldProblem(".".join([group, *(str(part) for part in each["loc"][:1])]), words))
        raise _wrong(found) from None


def _wrong(errors: list[FieldProblem]) -> Problem:
    return Problem(400, "invalid", "Some values cannot be used; see errors.", errors=errors)


def stored_options(source: Source, model: type[_Model]) -> _Model:
    """A source's options, held against what is allowed now.

    Raises:
        SourceError: says what has to be entered again.
    """
    try:
        return read_model(model, "options", source.options, kind=source.kind)
    except Problem as problem:
        words = " ".join(f"{error.field}: {error.detail}" for error in problem.errors)
        raise SourceError(f"Edit the source: {words}", permanent=True) from None


def seal_credentials(credentials: Credentials) -> str:
    """Credentials as they are stored: encrypted; empty for none."""
    values = credentials.values()
    return encrypt_secret(json.dumps(values)) if values else ""


def open_credentials(source: Source, model: type[Any]) -> Any:
    """A source's credentials, of ``model``.

    Raises:
        SecretLost: they were encrypted under another key.
    """
    text = decrypt_secret(source.credentials)
    try:
        return model.model_validate(json.loads(text) if text else {})
    except (ValidationError, ValueError):
        raise SecretLost("The stored credentials cannot be used any more: enter them again.") from None
