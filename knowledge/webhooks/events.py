"""What a webhook says, whoever sends it: pushed to which branch, a ping, a document."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from knowledge.webhooks.signatures import Signed
from ragsite.core.problems import Problem


@dataclass(frozen=True)
class Event:
    """Of one delivery.

    Attributes:
        kind: ``ping``, ``push`` or ``other``; of Standard Webhooks the type as it is sent (``document.upsert``).
        ref: what was pushed to: ``refs/heads/main``; empty where the sender does not say.
        default_branch: of the repository; empty where the sender does not say.
        data: the ``data`` of Standard Webhooks.
    """

    kind: str
    ref: str = ""
    default_branch: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


def read_event(*, signed: Signed, headers: Mapping[str, str], body: bytes) -> Event:
    """The event of a delivery whose signature holds.

    Raises:
        Problem: 400 for a body that is none.
    """
    document = _read_json(headers, body)
    if headers.get("x-gitlab-event") or signed.scheme == "gitlab":
        name = headers.get("x-gitlab-event") or str(document.get("object_kind", ""))
        pushes = name.lower() in ("push hook", "push", "tag push hook", "tag_push")
        return Event(
            "push" if pushes else "other",
            _text(document, "ref"),
            _text(document, "project", "default_branch"),
        )
    if signed.scheme == "github":
        name = headers.get("x-github-event", "")
        kind = name if name in ("ping", "push") else "other"
        return Event(kind, _text(document, "ref"), _text(document, "repository", "default_branch"))
    kind = _text(document, "type")
    if not kind:
        raise Problem(400, "invalid", "Give the event's “type”, for instance document.upsert.")
    data = document.get("data")
    return Event(kind, data=data if isinstance(data, dict) else {})


def _read_json(headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    try:
        if headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            body = parse_qs(body.decode(), max_num_fields=10).get("payload", [""])[0].encode()
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise Problem(400, "malformed", "The body cannot be read: send JSON.") from None
    if not isinstance(document, dict):
        raise Problem(400, "malformed", "The body must be a JSON object.")
    return document


def _text(document: Mapping[str, Any], *path: str) -> str:
    value: Any = document
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value[:1000].replace("\0", "") if isinstance(value, str) else ""
