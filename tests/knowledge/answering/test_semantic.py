"""The semantic cache: one answer for the same question in other words, and for nothing else."""

from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from asgiref.sync import async_to_sync

from knowledge.answering import semantic
from knowledge.answering.cache import CachedAnswer, write_answer
from knowledge.answering.coalesce import _outcome
from knowledge.answering.journey import Journey, Question
from knowledge.answering.semantic import Kept, Place, keep_question, kept, rests_on
from knowledge.answering.threshold import LEAST, MOST, START, threshold_of
from knowledge.config import answer_config
from knowledge.models import Answer, Corpus, ModelSettings
from knowledge.retrieval.base import Filters
from ragsite.core.observability import CACHE_HITS
from ragsite.core.redis import redis_connection
from tenants.models import UsageRecord
from tenants.scope import scope
from tests.knowledge.helpers import (
    HOLD_TIMER,
    ask,
    check_stream,
    conforms,
    read_events,
    run_job,
    send,
    upload_indexed,
)
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401
from tests.stub_provider import Block, Reply, StubProvider

pytestmark = on_shared_cast
OTHER_WORDS = "Could you tell me what the hold timer on edge routers is?"
MORE_WORDS = "On edge routers, what is the hold timer?"
GOOD = Reply(blocks=(Block("The hold timer is 30 seconds.", cites=((0, 0, 1),)),))


@pytest.fixture(autouse=True)
def forget_copies() -> None:
    kept._kept.clear()


def layer(shared: Any) -> dict[str, Any]:
    found: dict[str, Any] = conforms(send(shared.ada, "get", "cache/stats"), "/api/v1/cache/stats", "get")[
        "layers"
    ]
    return dict(found["semantic"])


def settings_of(shared: Any) -> Any:
    return send(shared.ada, "get", "model-settings").json()


def test_other_words_are_answered_by_one_call(shared: Any, model: StubProvider) -> None:
    model.script(GOOD)
    counted = CACHE_HITS.labels("semantic")._value.get()
    first = ask(shared.nina)
    found = ask(shared.nina, OTHER_WORDS)
    assert first["cache"] == "miss" and len(model.requests) == 1
    assert (found["cache"], found["cache_hit"], found["stale"]) == ("semantic", True, False)
    for name in ("answer", "sources", "citations", "answered", "grounded", "model", "provider", "confidence"):
        assert found[name] == first[name], name
    assert found["question"] == OTHER_WORDS and found["request_id"] != first["request_id"]
    assert found["usage"] == {"input_tokens": 0, "output_tokens": 0, "cost_usd": "0"}
    streamed = check_stream(read_events(shared.nina, "query/stream", {"question": MORE_WORDS}))
    assert streamed["cache"] == "semantic" and streamed["answer"] == first["answer"]
    assert len(model.requests) == 1
    assert ask(shared.nina)["cache"] == "exact"
    with scope(tenant_id=shared.acme.pk, tags=None):
        row = Answer.objects.get(pk=found["request_id"])
        assert (row.cache, row.status, row.cost_usd) == ("semantic", "cached", 0)
        assert not UsageRecord.objects.filter(request_id=row.pk).exists()
    figures = layer(shared)
    assert (figures["hits"], figures["misses"], figures["entries"]) == (2, 1, 1) and figures["bytes"] > 768
    assert CACHE_HITS.labels("semantic")._value.get() == counted + 2
    assert send(shared.ada, "delete", "cache").status_code in (200, 204)
    assert layer(shared)["entries"] == 0 and ask(shared.nina, OTHER_WORDS)["cache"] == "miss"


@pytest.mark.parametrize(
    "question",
    [
        "What is not the hold timer on edge routers?",
        "What is the hold timer on edge routers in IPv6?",
        "What is the hold timer on core routers?",
        "Why is the hold timer on edge routers?",
        "What was the hold timer on edge routers?",
    ],
)
def test_what_asks_something_else_is_asked(shared: Any, model: StubProvider, question: str) -> None:
    with scope(tenant_id=shared.acme.pk, tags=None):
        ModelSettings.objects.create(semantic_threshold=LEAST)
    ask(shared.nina)
    assert ask(shared.nina, question)["cache"] == "miss"
    assert ask(shared.nina, MORE_WORDS)["cache"] == "semantic"
    with scope(tenant_id=shared.acme.pk, tags=None):
        ModelSettings.objects.all().delete()


def test_without_the_cache_nothing_is_looked_up(shared: Any, model: StubProvider, configure: Any) -> None:
    ask(shared.nina)
    before = layer(shared)
    assert ask(shared.nina, OTHER_WORDS, cache=False)["cache"] == "miss"
    assert layer(shared)["misses"] == before["misses"] and len(model.requests) == 2
    # Another way to ask has other passages, or other models.
    for way in ({"k": 3}, {"tags": ["runbooks"]}, {"collections": ["handbook"]}):
        assert ask(shared.nina, MORE_WORDS, **way)["cache"] == "miss"
    assert (
        send(shared.ada, "patch", "model-settings", {"semantic_cache": False}).json()["semantic_cache"]
        is False
    )
    assert ask(shared.nina, "Please tell me what the hold timer on edge routers is.")["cache"] == "miss"
    assert send(shared.ada, "patch", "model-settings", {"semantic_cache": True}).status_code == 200
    configure(RAGSITE_SEMANTIC_CACHE="false")
    assert ask(shared.nina, "Please, what is the hold timer on edge routers?")["cache"] == "miss"
    with scope(tenant_id=shared.acme.pk, tags=None):
        ModelSettings.objects.all().delete()


def test_a_conversation_is_no_place_for_it(shared: Any, model: StubProvider) -> None:
    first = ask(shared.nina, conversation=None)
    body = ask(shared.nina, OTHER_WORDS, conversation=first["conversation"])
    assert body["cache"] == "miss"


def test_another_role_or_tenant_never_hits(shared: Any, model: StubProvider) -> None:
    assert "30 seconds" in str(ask(shared.nina)["sources"])
    for member in (shared.hal, shared.sam, shared.ada, shared.gina):
        assert ask(member, OTHER_WORDS)["cache"] == "miss"


def test_a_poisoned_place_shows_nothing_of_other_rights(shared: Any, model: StubProvider) -> None:
    """Whatever lies under the keys of a role: what its members may not read is not shown, nor found under other keys."""
    secret, words = (
        "How did the intruder enter the jump host?",
        "Please tell me how the intruder did enter the jump host.",
    )
    assert "marlin-7" in str(ask(shared.sam, secret)["sources"])
    with scope(tenant_id=shared.acme.pk, tags=None):
        stolen = Answer.objects.get(question=secret)
        version = Corpus.current_version()
    own = ask(shared.hal, "How do I get rid of code 809?")["sources"][:1]
    places = {
        "nothing": None,  # for hal's rights there is no such answer
        "stolen": stolen.sources,
        "stolen beside what he may read": [*own, {**stolen.sources[0], "n": 2}],
        "of other passages": own,
    }

    @async_to_sync
    async def poison(member: Any, *, words: str, sources: list[Any] | None) -> None:
        place = place_of(member)
        await keep_question(place, text=words)
        if sources is not None:
            payload = {
                "text": "Through marlin-7.", "sources": sources, "citations": [{"source": 1, "start": 0, "end": 17}],
                "marks": [], "answered": True, "grounded": True, "confidence": 1.0, "provider": "p", "model": "m",
            }  # fmt: skip
            answer = CachedAnswer(corpus_version=version, payload=payload)
            await write_answer(key=place.answer_key(words), answer=answer, seconds=60)

    for name, sources in places.items():
        poison(shared.hal, words=secret, sources=sources)
        body = ask(shared.hal, words)
        assert body["cache"] == "miss" and "marlin-7" not in str(body), name
        send(shared.ada, "delete", "cache")
    # One of his own passages does not open the door to another's.
    poison(
        shared.hal, words="How do I get rid of code 809?", sources=places["stolen beside what he may read"]
    )
    body = ask(shared.hal, "Please, how do I get rid of code 809?")
    assert body["cache"] == "miss" and "marlin-7" not in str(body)
    # Those who may read it are shown it: it is not the place that is wrong.
    poison(shared.sam, words=secret, sources=stolen.sources)
    assert ask(shared.sam, words)["answer"] == "Through marlin-7."


@pytest.mark.parametrize("change", ["changed", "deleted", "new", "tag", "role", "redis"])
def test_every_change_misses_at_once(shared: Any, model: StubProvider, change: str) -> None:
    mine = upload_indexed(
        shared.ada, "ticket.md", "# Ticket\n\nThe spare key is in drawer 5150.\n", tags="runbooks"
    )
    question, words = (
        "In which drawer is the spare key?",
        "Could you tell me in which drawer the spare key is?",
    )
    assert "drawer 5150" in str(ask(shared.nina, question)["sources"])
    assert ask(shared.nina, words)["cache"] == "semantic"
    role, tags = f"roles/{shared.nina.membership.role_id}", shared.nina.membership.role.tags
    match change:
        case "changed":
            replace_text(shared.ada, mine, b"# Ticket\n\nThe spare key is in drawer 6161.\n")
        case "deleted":
            send(shared.ada, "delete", f"documents/{mine}")
        case "new":
            upload_indexed(shared.ada, "other.md", "# Other\n\nNothing of the kind.\n", tags="runbooks")
        case "tag":
            send(shared.ada, "patch", f"documents/{mine}", {"tags": ["incident_reports"]})
        case "role":
            send(shared.ada, "patch", role, {"tags": ["faq"]})
        case "redis":
            redis_connection().flushdb()
    after = ask(shared.nina, words)
    assert after["cache"] == "miss" and not after["stale"]
    assert ("drawer 5150" in str(after)) is (change in ("new", "redis"))
    send(shared.ada, "patch", role, {"tags": tags})
    send(shared.ada, "delete", f"documents/{mine}")


def replace_text(member: Any, document: str, data: bytes) -> None:
    from django.core.files.uploadedfile import SimpleUploadedFile
    from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart

    body = encode_multipart(BOUNDARY, {"file": SimpleUploadedFile("ticket.md", data)})
    response = member.client.put(f"/api/v1/documents/{document}", body, content_type=MULTIPART_CONTENT)
    assert response.status_code == 202, response.content
    run_job(member, response.json()["task_id"])


def test_an_answer_that_is_old_or_found_nothing_is_no_ones(
    shared: Any, model: StubProvider, monkeypatch: Any
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("knowledge.answering.cache.FRESH_PART", 0.0)
        ask(shared.nina)
        assert ask(shared.nina, OTHER_WORDS)["cache"] == "miss"
    nothing = "Who won the chess championship of 1972?"
    assert not ask(shared.nina, nothing)["answered"]
    assert ask(shared.nina, "Please, who won the chess championship of 1972?")["cache"] == "miss"


def test_without_redis_it_is_a_miss(shared: Any, model: StubProvider, configure: Any) -> None:
    configure(REDIS_URL="unix:///tmp/there-is-no-redis-here.sock")
    assert [ask(shared.nina, words)["cache"] for words in (HOLD_TIMER, OTHER_WORDS)] == ["miss", "miss"]


def test_a_bad_rating_forgets_and_raises_the_threshold(shared: Any, model: StubProvider) -> None:
    ask(shared.nina)
    found = ask(shared.nina, OTHER_WORDS)
    assert found["cache"] == "semantic" and settings_of(shared)["semantic_threshold"] is None
    rated = send(shared.nina, "post", "feedback", {"request_id": found["request_id"], "rating": 2}).json()
    assert settings_of(shared)["semantic_threshold"] == 0.97
    with scope(tenant_id=shared.acme.pk, tags=None):
        ModelSettings.objects.update(semantic_threshold=None)  # the words are refused, however alike
    assert ask(shared.nina, OTHER_WORDS, k=5)["cache"] == "miss"
    assert ask(shared.nina, MORE_WORDS)["cache"] == "semantic", "of other words nobody has complained"

    # What is rated well lowers it, a rating that is changed or withdrawn counts no more.
    path = f"feedback/{rated['id']}"
    assert send(shared.nina, "patch", path, {"rating": 5}).status_code == 200
    assert settings_of(shared)["semantic_threshold"] == 0.949
    assert send(shared.nina, "delete", path).status_code == 204
    assert settings_of(shared)["semantic_threshold"] == 0.95
    with scope(tenant_id=shared.acme.pk, tags=None):
        ModelSettings.objects.all().delete()


def test_a_bad_rating_of_the_answer_that_was_shown_forgets_it_too(shared: Any, model: StubProvider) -> None:
    first = ask(shared.nina)
    assert ask(shared.nina, OTHER_WORDS)["cache"] == "semantic"
    rated = send(shared.nina, "post", "feedback", {"request_id": first["request_id"], "helpful": False})
    assert ask(shared.nina, MORE_WORDS)["cache"] == "miss"
    assert settings_of(shared)["semantic_threshold"] is None, "the words were matched rightly"
    send(shared.nina, "delete", f"feedback/{rated.json()['id']}")


def test_who_waits_for_such_an_answer_is_told_whose_it_was(shared: Any) -> None:
    question = Question(request_id=uuid4(), text=OTHER_WORDS, endpoint="query")
    journey = Journey(
        question=question, principal=shared.nina.principal, cached={"provider": "anthropic", "model": "m"}
    )
    finished = _outcome(journey)["finished"]
    assert (finished["provider"], finished["model"], finished["fallback"]) == ("anthropic", "m", False)


def test_the_threshold_stays_within_its_bounds() -> None:
    assert threshold_of(good=0, bad=0) == START == 0.95
    assert threshold_of(good=0, bad=50) == MOST == 0.99 and threshold_of(good=500, bad=0) == LEAST == 0.90
    assert threshold_of(good=20, bad=1) == START


def test_it_rests_on_the_same_passages(shared: Any) -> None:
    sources = [{"n": n, "chunk_id": str(uuid4())} for n in range(1, 6)]
    payload = {"sources": sources, "citations": [{"source": 2}]}

    def found(*places: int) -> list[Any]:
        from types import SimpleNamespace

        return [SimpleNamespace(chunk_id=sources[n]["chunk_id"] if n < 5 else uuid4()) for n in places]

    assert rests_on(payload, passages=found(0, 1, 2, 3, 4)) and rests_on(payload, passages=found(1, 0, 9))
    assert not rests_on(payload, passages=found(0, 2, 3)), "what it cites was not found"
    assert not rests_on(payload, passages=found(9, 0, 1)), "something else is nearest"
    assert not rests_on(payload, passages=found(1, 2, 3, 0)), "what was nearest is not any more"
    assert not rests_on(payload, passages=[]) and not rests_on(
        payload | {"citations": []}, passages=found(0, 1)
    )


def test_a_place_holds_the_newest_questions_once(shared: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(semantic, "MOST_QUESTIONS", 3)
    place = place_of(shared.nina)

    @async_to_sync
    async def keep(*texts: str) -> tuple[str, ...]:
        for text in texts:
            await keep_question(place, text=text)
        await semantic._alike(place, text="Which line is it?")
        held: tuple[str, ...] = semantic.kept.get(place.key)[1].texts  # type: ignore[index]
        return held

    assert keep("one", "two") == ("one", "two")
    assert keep("three", "one") == ("two", "three", "one"), "only what is new is read"
    redis_connection().xadd(place.key, {"text": "odd", "vector": b"1234"})  # of another shape: passed over
    assert keep("four") == ("three", "one", "four")
    kept._kept.clear()
    assert keep("five") == ("four", "five"), "Redis holds three, and one of them is odd"
    assert isinstance(kept.get(place.key)[1], Kept) and kept.get(place.key)[1].vectors.dtype == np.float16  # type: ignore[index]


def place_of(member: Any) -> Place:
    from knowledge.embedding.factory import embedder

    return Place(member.membership, 5, Filters(), answer_config(), embedder().name)
