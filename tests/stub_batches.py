"""Anthropic's Message Batches, as `tests/stub_provider.py` speaks them: a batch ends after it was asked for a few times."""

import json
import re
from collections.abc import Callable
from typing import Any

from tests.stub_validation import Invalid, validate_request

_TARGET = re.compile(r"/v1/messages/batches(?:/(msgbatch_\w+)(/results|/cancel)?)?(?:\?.*)?$")
_KEY = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def is_batches(target: str) -> bool:
    return bool(_TARGET.match(target))


class Batches:
    """`looks` is how often a batch is told as in progress; `failing` are custom ids whose task fails."""

    def __init__(self) -> None:
        self.looks = 1
        self.failing: set[str] = set()
        self._kept: dict[str, dict[str, Any]] = {}

    def answer(self, request: Any, message: Callable[..., dict[str, Any]]) -> tuple[int, bytes]:
        from tests.stub_provider import Reply, _echo

        match = _TARGET.match(request.target)
        assert match is not None
        pk, what = match.groups()
        if pk is None:
            return self._create(request)
        batch = self._kept.get(pk)
        if batch is None:
            return _error(404, "not_found_error", f"Batch {pk} not found")
        if what == "/cancel":
            batch["cancelled"], batch["left"] = True, 0
        elif what == "/results":
            rows = []
            for each in batch["requests"]:
                if batch["cancelled"]:
                    result: dict[str, Any] = {"type": "canceled"}
                elif each["custom_id"] in self.failing:
                    failure = {"type": "invalid_request_error", "message": "scripted"}
                    result = {
                        "type": "errored",
                        "error": {"type": "error", "error": failure, "request_id": None},
                    }
                else:
                    whole = message(each["params"], Reply(), _echo(each["params"]))
                    result = {"type": "succeeded", "message": whole}
                rows.append(json.dumps({"custom_id": each["custom_id"], "result": result}))
            return 200, ("\n".join(rows[::-1]) + "\n").encode()
        else:
            batch["left"] -= 1
        return 200, json.dumps(_shown(pk, batch)).encode()

    def _create(self, request: Any) -> tuple[int, bytes]:
        try:
            keys = [each["custom_id"] for each in request.body["requests"]]
            if len(set(keys)) < len(keys) or not all(_KEY.fullmatch(key) for key in keys):
                raise Invalid("requests: custom_id must be unique and match ^[a-zA-Z0-9_-]{1,64}$")
            for each in request.body["requests"]:
                validate_request(headers=request.headers, body=each["params"])
        except Invalid as error:
            return _error(error.status, "invalid_request_error", str(error))
        pk = f"msgbatch_stub{len(self._kept) + 1}"
        self._kept[pk] = {"requests": request.body["requests"], "left": self.looks + 1, "cancelled": False}
        return 200, json.dumps(_shown(pk, self._kept[pk])).encode()


def _shown(pk: str, batch: dict[str, Any]) -> dict[str, Any]:
    ended, count = batch["left"] <= 0, len(batch["requests"])
    counts = {"processing": 0 if ended else count, "succeeded": count if ended else 0, "errored": 0}
    return {
        "id": pk,
        "type": "message_batch",
        "processing_status": "ended" if ended else "in_progress",
        "request_counts": counts | {"canceled": 0, "expired": 0},
        "ended_at": "2026-11-26T00:00:00Z" if ended else None,
        "created_at": "2026-11-26T00:00:00Z",
        "expires_at": "2026-11-27T00:00:00Z",
        "archived_at": None,
        "cancel_initiated_at": None,
        "results_url": f"/v1/messages/batches/{pk}/results" if ended else None,
    }


def _error(status: int, kind: str, message: str) -> tuple[int, bytes]:
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_stub"}
    return status, json.dumps(body).encode()
