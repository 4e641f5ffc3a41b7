"""How long an answer is shown again, its renewal, and the copies in a process."""

import time
from typing import Any

import httpx
import pytest

from knowledge.answering.copies import Copies, copies
from knowledge.answering.lifetime import shortest_life
from knowledge.config import CLASS_SECONDS
from knowledge.models import Answer, Collection, ModelSettings
from ragsite.core.redis import redis_connection
from tenants.models import UsageRecord
from tenants.scope import scope
from tests.knowledge.answering.test_model_live import bearer
from tests.knowledge.helpers import HOLD_TIMER, ask, check_problem, eventually, send
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401
from tests.stub_provider import Block, Reply, StubProvider

pytestmark = on_shared_cast
GOOD = Reply(blocks=(Block("The hold timer is 30 seconds.", cites=((0, 0, 1),)),))
LATER = Reply(blocks=(Block("The hold timer on edge routers is 30 seconds.", cites=((0, 0, 1),)),))


def kept_seconds() -> int:
    """What is left of the life of the one cached answer."""
    (key,) = redis_connection().scan_iter(match="*:exact:*")
    return int(redis_connection().ttl(key))


def layers(shared: Any) -> dict[str, Any]:
    found: dict[str, Any] = send(shared.ada, "get", "cache/stats").json()["layers"]
    return found


def test_the_shortest_life_of_what_is_cited_holds() -> None:
    def life(*classes: str) -> int:
        return shortest_life(classes=set(classes), seconds=CLASS_SECONDS, otherwise=3600)

    assert life("reference", "troubleshooting") == 3600 and life("state", "reference") == 300
    assert life("configuration", "documentation") == 12 * 3600 and life() == 3600
    assert set(CLASS_SECONDS) == set(Collection.ContentClass.values)


def test_an_answer_lives_as_long_as_its_collection_says_and_its_tenant(shared: Any) -> None:
    path = f"collections/{shared.collections['acme'].pk}"
    for content_class, seconds in (("state", 300), ("reference", 604_800), ("documentation", 86_400)):
        assert send(shared.ada, "patch", path, {"content_class": content_class}).status_code == 200
        redis_connection().flushdb()
        assert ask(shared.nina)["citations"]
        assert seconds - 5 <= kept_seconds() <= seconds
    changed = send(shared.ada, "patch", "model-settings", {"cache_seconds": {"documentation": 40}})
    assert changed.json()["cache_seconds"] == {"documentation": 40}
    redis_connection().flushdb()
    assert ask(shared.nina)["cache"] == "miss" and 35 <= kept_seconds() <= 40
    # What cites nothing has nobody's class.
    redis_connection().flushdb()
    assert ask(shared.nina, "Who won the chess championship of 1972?")["citations"] == []
    assert 3595 <= kept_seconds() <= 3600
    for wrong in ({"documentation": -1}, {"state": "soon"}):
        check_problem(send(shared.ada, "patch", "model-settings", {"cache_seconds": wrong}), 400)
    assert (
        send(shared.ada, "patch", "model-settings", {"cache_seconds": {"documentation": 0}}).status_code
        == 200
    )
    assert [ask(shared.nina, cache=n > 0)["cache"] for n in range(2)] == ["miss", "miss"]
    with scope(tenant_id=shared.acme.pk, tags=None):
        ModelSettings.objects.all().delete()


def test_a_new_rule_holds_for_what_is_cached_as_well(shared: Any) -> None:
    assert [ask(shared.nina)["cache"] for _ in range(2)] == ["miss", "exact"]
    send(shared.ada, "patch", "model-settings", {"cache_seconds": {"documentation": 0}})
    try:
        assert [ask(shared.nina)["cache"] for _ in range(2)] == ["miss", "miss"]
    finally:
        with scope(tenant_id=shared.acme.pk, tags=None):
            ModelSettings.objects.all().delete()


def test_an_old_answer_is_shown_as_stale_while_one_process_makes_it_again(
    shared: Any, shared_site: str, model: StubProvider, monkeypatch: Any
) -> None:
    model.script(GOOD, LATER)
    with httpx.Client(base_url=shared_site, headers=bearer(shared.nina), timeout=20) as client:

        def query() -> dict[str, Any]:
            found: dict[str, Any] = client.post("/api/v1/query", json={"question": HOLD_TIMER}).json()
            return found

        with monkeypatch.context() as patch:
            patch.setattr("knowledge.answering.cache.FRESH_PART", 0.0)
            assert query()["cache"] == "miss"
        with scope(tenant_id=shared.acme.pk, tags=None):
            before = Answer.objects.count()
        stale = query()
        assert (stale["cache"], stale["stale"], stale["answer"]) == (
            "exact",
            True,
            "The hold timer is 30 seconds.",
        )
        renewed = eventually(
            lambda: next((a for a in [query()] if not a["stale"]), None), 5, "it was not made again"
        )
        assert renewed["cache"] == "exact" and renewed["answer"].startswith("The hold timer on edge")
    assert len(model.requests) == 2, "one process makes it again, once"
    with scope(tenant_id=shared.acme.pk, tags=None):
        # It is cached before it is in the ledger.
        rows = eventually(lambda: list(UsageRecord.objects.filter(endpoint="renewal")), 5, "no ledger row")
        assert len(rows) == 1 and rows[0].output_tokens > 0
        assert not Answer.objects.filter(endpoint="renewal").exists(), "nobody asked it"
        assert Answer.objects.count() > before


def test_an_answer_outlives_changes_of_other_documents_as_a_stale_one(
    shared: Any, shared_site: str, model: StubProvider
) -> None:
    model.script(GOOD)
    with httpx.Client(base_url=shared_site, headers=bearer(shared.nina), timeout=20) as client:

        def query(question: str = HOLD_TIMER) -> dict[str, Any]:
            found: dict[str, Any] = client.post("/api/v1/query", json={"question": question}).json()
            return found

        assert query()["cache"] == "miss"
        unanswered = "Who won the chess championship of 1972?"
        assert not query(unanswered)["answered"] and query(unanswered)["cache"] == "exact"
        other = shared.documents["acme"]["vpn-faq.md"].pk
        send(shared.ada, "patch", f"documents/{other}", {"title": "Questions about the VPN"})
        before = layers(shared)["exact"]
        moved = query()
        assert (moved["cache"], moved["stale"]) == ("exact", True)
        after = layers(shared)["exact"]
        assert (after["hits"], after["misses"]) == (before["hits"] + 1, before["misses"])
        renewed = eventually(
            lambda: next((a for a in [query()] if not a["stale"]), None), 5, "it was not made again"
        )
        assert renewed["cache"] == "exact" and renewed["answer"] == moved["answer"]
        # What was missing may have come: that they do not say is looked up again.
        again = query(unanswered)
        assert (again["cache"], again["stale"]) == ("miss", False)
    assert len(model.requests) == 1, "the same passages again, so the model need not be asked"


def test_a_stale_answer_shows_nothing_that_was_changed_deleted_or_closed_to_its_reader(shared: Any) -> None:
    first = ask(shared.nina)
    (cited,) = {s["document_id"] for s in first["sources"] if s["n"] == first["citations"][0]["source"]}
    path = f"documents/{cited}"
    tags = send(shared.ada, "get", path).json()["tags"]
    assert ask(shared.nina)["cache"] == "exact"
    send(shared.ada, "patch", path, {"tags": ["firewall_rules"]})
    closed = ask(shared.nina)
    assert closed["cache"] == "miss" and cited not in str(closed)
    send(shared.ada, "patch", path, {"tags": tags})
    assert cited in str(ask(shared.nina))
    send(shared.ada, "delete", path)
    deleted = ask(shared.nina)
    assert deleted["cache"] == "miss" and cited not in str(deleted)
    send(shared.ada, "post", f"{path}/restore")
    assert cited in str(ask(shared.nina))


def test_an_answer_that_grew_old_is_never_one_of_changed_documents_or_rights(
    shared: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("knowledge.answering.cache.FRESH_PART", 0.0)
    ask(shared.nina)
    old = ask(shared.nina)
    assert old["stale"]
    path = f"documents/{old['sources'][0]['document_id']}"
    send(shared.ada, "patch", path, {"title": "Another title"})
    assert not ask(shared.nina)["stale"]
    assert ask(shared.nina)["stale"]
    role = f"roles/{shared.nina.membership.role_id}"
    tags = shared.nina.membership.role.tags
    send(shared.ada, "patch", role, {"tags": ["faq"]})
    after = ask(shared.nina)
    assert not after["stale"] and "30 seconds" not in str(after)
    send(shared.ada, "patch", role, {"tags": tags})
    send(shared.ada, "patch", path, {"title": old["sources"][0]["title"]})


def test_a_copy_in_the_process_is_shown_only_while_redis_holds_the_same(shared: Any) -> None:
    first = ask(shared.nina)
    for _ in range(3):
        assert ask(shared.nina)["answer"] == first["answer"]
    told = layers(shared)
    assert (told["exact"]["hits"], told["exact"]["misses"]) == (3, 1)
    assert (told["process"]["hits"], told["process"]["misses"]) == (2, 1)
    assert told["process"]["entries"] >= 1 and told["process"]["bytes"] > 100
    # Made again by another process: its own copy is not shown any more.
    (key,) = redis_connection().scan_iter(match="*:exact:*")
    body = redis_connection().hget(key, "body").replace(b"30 seconds", b"31 seconds")
    redis_connection().hset(key, mapping={"body": body, "stamp": "another"})
    assert "31 seconds" in ask(shared.nina)["answer"]
    redis_connection().delete(key)
    assert ask(shared.nina)["cache"] == "miss"


def test_copies_are_few_and_short_lived() -> None:
    few = Copies(most=2, seconds=0.05)
    for n in range(3):
        few.put(f"t:{n}", stamp=b"s", value=n, size=10)
    assert few.get("t:0") is None and few.get("t:2") == (b"s", 2)
    assert few.size_of("t:") == (2, 20) and few.size_of("u:") == (0, 0)
    time.sleep(0.06)
    assert few.get("t:2") is None and few.size_of("t:") == (0, 0)
    assert (copies._most, copies._seconds) == (1000, 60)


@pytest.mark.parametrize("change", ["changed", "deleted", "new", "tag", "role", "member", "redis"])
def test_every_change_misses_at_once_or_makes_it_stale(shared: Any, change: str) -> None:
    """The rules of what a cached answer may do, one by one; each from a process that holds a copy."""
    from tests.knowledge.helpers import run_job, upload_indexed

    mine = upload_indexed(
        shared.ada, "ticket.md", "# Ticket\n\nThe spare key is in drawer 5150.\n", tags="runbooks"
    )
    question = "In which drawer is the spare key?"
    assert "5150" in ask(shared.nina, question)["answer"]
    assert [ask(shared.nina, question)["cache"] for _ in range(2)] == ["exact", "exact"]
    before_role, before_tags = shared.nina.membership.role_id, shared.nina.membership.role.tags
    member, role = f"members/{shared.nina.membership.pk}", f"roles/{before_role}"
    gone = True
    match change:
        case "changed":
            from django.core.files.uploadedfile import SimpleUploadedFile
            from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart

            file = SimpleUploadedFile("ticket.md", b"# Ticket\n\nThe spare key is in drawer 6161.\n")
            response = shared.ada.client.put(
                f"/api/v1/documents/{mine}",
                encode_multipart(BOUNDARY, {"file": file}),
                content_type=MULTIPART_CONTENT,
            )
            assert response.status_code == 202, response.content
            run_job(shared.ada, response.json()["task_id"])
        case "deleted":
            send(shared.ada, "delete", f"documents/{mine}")
        case "new":
            upload_indexed(shared.ada, "other.md", "# Other\n\nNothing of the kind.\n", tags="runbooks")
            gone = False
        case "tag":
            send(shared.ada, "patch", f"documents/{mine}", {"tags": ["incident_reports"]})
        case "role":
            send(shared.ada, "patch", role, {"tags": ["faq"]})
        case "member":
            send(shared.ada, "patch", member, {"role": "security_analyst"})
        case "redis":
            redis_connection().flushdb()
            gone = False
    after = ask(shared.nina, question)
    expected = ("exact", True) if change == "new" else ("miss", False)
    assert (after["cache"], after["stale"]) == expected
    assert ("drawer 5150" not in str(after)) is gone
    send(shared.ada, "patch", role, {"tags": before_tags})
    send(shared.ada, "patch", member, {"role": "network_engineer"})
    send(shared.ada, "delete", f"documents/{mine}")
