"""A live site that answers hits before Django, and what its tests ask it."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.cast import Member
from tests.knowledge.helpers import HOLD_TIMER, eventually


class Asker:
    """A client of one member; what was answered before Django is told apart by its timings."""

    def __init__(self, address: str, credential: dict[str, str]) -> None:
        self.client = httpx.Client(base_url=address, headers=credential, timeout=20)

    def post(self, question: str = HOLD_TIMER, **body: Any) -> httpx.Response:
        return self.client.post("/api/v1/query", json={"question": question, **body})

    def is_fast(self, question: str = HOLD_TIMER) -> bool:
        response = self.post(question)
        return response.status_code == 200 and is_fast(response)

    def warm(self, question: str = HOLD_TIMER) -> httpx.Response:
        """Asks until a hit is answered before Django: a miss, a hit of Django's, and that; more while a gate is shut."""

        def ask() -> httpx.Response | None:
            response = self.post(question)
            assert response.status_code == 200, response.text
            return response if is_fast(response) else None

        found: httpx.Response = eventually(ask, 10, "it is never answered before Django")
        return found


def is_fast(response: httpx.Response) -> bool:
    return set(response.json().get("timings", {})) == {"cache"}


@contextmanager
def asker(address: str, member: Member, **headers: str) -> Iterator[Asker]:
    found = Asker(address, headers or {"Authorization": member.client.defaults["HTTP_AUTHORIZATION"]})
    with found.client:
        yield found


def new_question() -> str:
    """One that nobody has asked yet, whose answer is that of the hold timer."""
    return f"{HOLD_TIMER} {uuid.uuid4().hex[:6]}"
