"""Questions that are asked while a tenant is switched to another model, and back."""

import threading
from collections import Counter
from typing import Any

import httpx
import pytest

from knowledge.embedding.spaces import active_model, build_space, start_migration, switch_space
from knowledge.models import EmbeddingSpace
from knowledge.retrieval import search
from tests.knowledge.answering.test_model_live import bearer
from tests.knowledge.helpers import HOLD_TIMER, check_answer, eventually
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast
OFTEN, EACH = 4, 2  # switches, and answers that each asker has between two of them


def test_questions_go_on_while_the_model_is_switched_there_and_back(
    shared: Any, shared_site: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = EmbeddingSpace.objects.get(model=active_model())
    second = start_migration(model=other)
    assert build_space(second)
    dimensions = {first.model: first.dimensions, other: second.dimensions}
    expected = str(shared.documents["acme"]["bgp-session-down.md"].pk)
    found: Counter[str] = Counter()
    rank = search.rank_chunks

    def note(*, vector: Any, model: str, **more: Any) -> Any:
        ranking = rank(vector=vector, model=model, **more)
        compared = {part.segment.vectors.shape[1] for part in ranking.view.parts}
        assert compared == {len(vector)} == {dimensions[model]} and ranking.dense
        found[model] += 1
        return ranking

    monkeypatch.setattr(search, "rank_chunks", note)
    enough, answered = threading.Event(), [0, 0, 0]
    wrong: list[AssertionError] = []

    def go_on_asking(asker: int) -> None:
        with httpx.Client(base_url=shared_site, headers=bearer(shared.nina), timeout=60) as client:
            while not enough.is_set() and not wrong:
                # One of them takes what was found before.
                body = {"question": HOLD_TIMER, "cache": asker == 0}
                response = client.post("/api/v1/query", json=body)
                try:
                    assert response.status_code == 200, response.text
                    answer = response.json()
                    check_answer(answer)
                    assert "30 seconds" in answer["answer"] and answer["answered"], answer
                    assert expected in {source["document_id"] for source in answer["sources"]}, answer
                except AssertionError as error:
                    wrong.append(error)
                answered[asker] += 1

    askers = [threading.Thread(target=go_on_asking, args=(asker,)) for asker in range(len(answered))]
    for asker in askers:
        asker.start()
    try:
        for turn in range(OFTEN + 1):
            before = list(answered)
            eventually(
                lambda before=before: (
                    wrong or all(now >= then + EACH for now, then in zip(answered, before, strict=True))
                ),
                120,
            )
            if turn < OFTEN:
                switch_space(space=first if turn % 2 else second)
    finally:
        enough.set()
        for asker in askers:
            asker.join(60)
    assert not wrong, wrong[0]
    assert active_model() == first.model
    assert set(found) == {first.model, other} and min(found.values()) >= OFTEN // 2
