"""POST /api/v1/query/batch: many questions as one job."""

import re
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from django.db import connections
from django.test import Client
from django.utils import timezone

from knowledge.answering import batch
from knowledge.answering.batch import ASKER_GONE, KEY_ENDED, TENANT_SUSPENDED
from knowledge.answering.collect import collect_answer
from knowledge.answering.renew import SETTLING_SECONDS
from knowledge.models import Job
from ragsite.core.hops import run_db
from ragsite.core.problems import Problem
from ragsite.core.redis import redis_connection
from tenants.models import ApiKey, Membership, Role, Tenant, User
from tenants.people import change_member
from tenants.scope import scope, unscoped
from tests.knowledge.answering.test_cache_life import GOOD, LATER
from tests.knowledge.helpers import HOLD_TIMER, ask, check_answer, check_problem, run_job, send
from tests.knowledge.helpers import upload as send_file
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401
from tests.stub_provider import Reply, StubProvider

pytestmark = on_shared_cast
QUESTIONS = [
    "What is the hold timer on edge routers?",
    "Who is called when a session stays down?",
    "Which colour has the moon base?",
]


def start(member: Any, **body: Any) -> Any:
    return send(member, "post", "query/batch", {"questions": QUESTIONS} | body)


def test_the_result_is_the_list_of_answers(shared: Any) -> None:
    response = start(shared.nina)
    assert response.status_code == 202
    task = response.json()
    assert task["status_url"] == f"/api/v1/tasks/{task['task_id']}" == response.headers["Location"]
    waiting = send(shared.nina, "get", f"tasks/{task['task_id']}").json()
    assert waiting["state"] == "PENDING" and [r["answer"] for r in waiting["result"]] == [None] * 3
    job = run_job(shared.nina, task["task_id"])
    assert (job["state"], job["kind"], job["progress"]) == ("SUCCESS", "questions", 100)
    assert job["documents"]["seen"] == 3 and job["documents"]["changed"] == 3
    for question, body in zip(QUESTIONS, job["result"], strict=True):
        check_answer(body)
        assert body["question"] == question
        assert send(shared.nina, "get", f"answers/{body['request_id']}").json() == body
    assert "30 seconds" in job["result"][0]["answer"] and job["result"][2]["answered"] is False
    # The asker's own: a colleague knows nothing of it, who manages sees the job and no question.
    check_problem(send(shared.sam, "get", f"tasks/{task['task_id']}"), 404)
    check_problem(send(shared.gus, "get", f"tasks/{task['task_id']}"), 404)
    seen = send(shared.ada, "get", f"tasks/{task['task_id']}")
    assert seen.json()["result"] is None and "hold timer" not in seen.content.decode()


def key_of(shared: Any, member: str, *scopes: str) -> Any:
    """An API key of a member, with these scopes, as one who asks."""
    made = send(
        shared.ada, "post", "api-keys", {"name": str(uuid.uuid4()), "member": member, "scopes": list(scopes)}
    )
    assert made.status_code == 201, made.content
    client = Client(headers={"authorization": f"Bearer {made.json()['key']}"})
    return replace(shared.members[member], client=client)


def test_a_key_reaches_what_its_scopes_reach(shared: Any) -> None:
    task = start(shared.nina).json()["task_id"]
    path = f"tasks/{task}"
    # The key of somebody who manages, which may ask alone, knows nothing of another's job.
    asks = key_of(shared, "ada", "ask")
    check_problem(send(asks, "get", path), 404)
    check_problem(send(asks, "delete", path), 404)
    assert task not in send(key_of(shared, "ada", "upload"), "get", "tasks").content.decode()
    assert task in send(key_of(shared, "ada", "upload", "manage"), "get", "tasks").content.decode()
    assert send(key_of(shared, "ada", "manage"), "get", path).json()["state"] == "PENDING"
    # A key that may not ask follows its member's batch, and is shown no answer of it.
    uploads = key_of(shared, "nina", "upload")
    run_job(shared.nina, task)
    seen = send(uploads, "get", path)
    assert seen.json()["state"] == "SUCCESS"
    assert seen.json()["result"] is None and "hold timer" not in seen.content.decode()
    assert "30 seconds" in send(key_of(shared, "nina", "ask"), "get", path).content.decode()


def test_a_key_ends_what_it_may_begin(shared: Any) -> None:
    batch = start(shared.nina).json()["task_id"]
    upload = send_file(shared.nina, tags="runbooks").json()["task_id"]
    asks, uploads = key_of(shared, "nina", "ask"), key_of(shared, "nina", "upload")
    check_problem(send(uploads, "delete", f"tasks/{batch}"), 403)
    check_problem(send(asks, "delete", f"tasks/{upload}"), 403)
    assert send(asks, "delete", f"tasks/{batch}").json()["state"] == "CANCELLED"
    assert send(uploads, "delete", f"tasks/{upload}").json()["state"] == "CANCELLED"


def test_a_role_that_may_ask_alone_follows_its_own_batch_and_reads_its_own_documents(shared: Any) -> None:
    task = start(shared.hal, questions=["Which host did the intruder enter through?", "What is code 809?"])
    job = run_job(shared.hal, task.json()["task_id"])
    secret, own = job["result"]
    assert "marlin" not in str(secret) and secret["answered"] is False
    assert "IKE" in own["answer"]


def test_each_question_takes_its_part_of_the_limits(shared: Any, monkeypatch: Any) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    with scope(tenant_id=shared.acme.pk, tags=None):
        Tenant.objects.filter(pk=shared.acme.pk).update(user_requests=4)
    redis_connection().flushdb()
    try:
        task = start(shared.nina).json()["task_id"]  # itself one of the four
        with monkeypatch.context() as patch:
            patch.setattr(batch, "AT_ONCE", 1)
            patch.setattr("knowledge.answering.batch.asyncio.sleep", pause)
            assert run_job(shared.nina, task)["state"] == "SUCCESS"
        check_problem(send(shared.nina, "post", "query", {"question": QUESTIONS[0]}), 429)
        # Half of them are left behind the first, a quarter behind the second, nothing behind the last: of which there is
        # nobody left to wait.
        assert [seconds for seconds in pauses if seconds > 1] == pytest.approx([15], abs=1)
    finally:
        with scope(tenant_id=shared.acme.pk, tags=None):
            Tenant.objects.filter(pk=shared.acme.pk).update(user_requests=None)
        redis_connection().flushdb()


def test_what_was_done_is_not_done_again(shared: Any, model: StubProvider) -> None:
    task = start(shared.nina, cache=False).json()["task_id"]
    run_job(shared.nina, task)
    asked = len(model.requests)
    assert asked >= 2
    with scope(tenant_id=shared.acme.pk, tags=None):
        Job.objects.filter(pk=task).update(state=Job.State.PENDING, finished_at=None)
    again = run_job(shared.nina, task)
    assert again["state"] == "SUCCESS" and len(model.requests) == asked
    assert again["documents"]["changed"] == 3


def test_an_old_answer_is_made_again_before_the_batch_ends(
    shared: Any, model: StubProvider, monkeypatch: Any
) -> None:
    model.script(GOOD, LATER)
    grow_old(shared, monkeypatch)
    job = run_job(shared.nina, start(shared.nina, questions=[HOLD_TIMER]).json()["task_id"])
    (shown,) = job["result"]
    assert (job["state"], shown["cache"], shown["answer"]) == (
        "SUCCESS",
        "exact",
        "The hold timer is 30 seconds.",
    )
    again = ask(shared.nina)
    assert (again["cache"], again["stale"]) == ("exact", False)
    assert again["answer"].startswith("The hold timer on edge") and len(model.requests) == 2


def test_a_renewal_that_is_cancelled_leaves_it_to_others(
    shared: Any, model: StubProvider, monkeypatch: Any
) -> None:
    model.script(GOOD, Reply(wait_seconds=20), LATER)
    grow_old(shared, monkeypatch)
    task = start(shared.nina, questions=[HOLD_TIMER]).json()["task_id"]
    with cancelling(shared, task, when=lambda: len(model.requests) == 2):
        assert run_job(shared.nina, task)["state"] == "CANCELLED"
    (claim,) = redis_connection().scan_iter(match="*:renewing:*")
    assert redis_connection().ttl(claim) <= SETTLING_SECONDS


def grow_old(shared: Any, monkeypatch: Any) -> None:
    """A cached answer that is to be made again."""
    redis_connection().flushdb()
    with monkeypatch.context() as patch:
        patch.setattr("knowledge.answering.cache.FRESH_PART", 0.0)
        assert ask(shared.nina)["cache"] == "miss"


def test_a_batch_that_is_cancelled_ends_and_keeps_what_is_done(shared: Any, model: StubProvider) -> None:
    waiting = start(shared.nina).json()["task_id"]
    assert send(shared.nina, "delete", f"tasks/{waiting}").json()["state"] == "CANCELLED"
    model.script(*[Reply(wait_seconds=20)] * 8)
    task = start(shared.nina, cache=False).json()["task_id"]
    with cancelling(shared, task, when=lambda: bool(model.requests)):
        job = run_job(shared.nina, task)
    assert job["state"] == "CANCELLED"


@contextmanager
def cancelling(shared: Any, task: str, *, when: Callable[[], bool]) -> Iterator[None]:
    """Cancels a job from elsewhere as soon as ``when`` holds."""

    def cancel() -> None:
        while not when():
            threading.Event().wait(0.05)
        with scope(tenant_id=shared.acme.pk, tags=None):
            Job.objects.filter(pk=task).update(cancel_requested=True)
        connections.close_all()

    other = threading.Thread(target=cancel)
    other.start()
    yield
    other.join()


def test_wrong_batches_say_what_is_wrong(shared: Any) -> None:
    for body in ({"questions": []}, {"questions": ["What?"] * 101}, {"questions": ["?"]}, {}):
        response = send(shared.nina, "post", "query/batch", body)
        check_problem(response, 400)
    check_problem(start(shared.nina, collections=["nowhere"]), 404)
    check_problem(send(shared.nina, "get", f"tasks/{uuid.uuid4()}"), 404)


async def answer_and_then(act: Any, **asked: Any) -> Any:
    """Answers as a batch does, and lets something happen before the next question."""
    done = await collect_answer(**asked)
    await run_db(act)
    return done


def one_after_another(monkeypatch: Any, act: Any) -> None:
    monkeypatch.setattr(batch, "AT_ONCE", 1)
    monkeypatch.setattr(batch, "collect_answer", partial(answer_and_then, act))


def test_a_role_that_changes_meanwhile_holds_for_the_next_question(shared: Any, monkeypatch: Any) -> None:
    task = start(shared.nina, questions=[QUESTIONS[0], QUESTIONS[1]]).json()["task_id"]

    def become(name: str) -> None:
        with scope(tenant_id=shared.acme.pk, tags=None):
            role = Role.objects.get(name=name)
            if shared.nina.membership.role_id != role.pk:
                change_member(membership=shared.nina.membership, role=role, principal=None)

    one_after_another(monkeypatch, lambda: become("management"))
    try:
        run_job(shared.nina, task)
    finally:
        become("network_engineer")
    first, second = send(shared.nina, "get", f"tasks/{task}").json()["result"]
    assert "30 seconds" in first["answer"]
    assert second["sources"] and {s["uri"] for s in second["sources"]} == {"edge-policy.md"}


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("user", ASKER_GONE),
        ("membership", ASKER_GONE),
        ("ability", ASKER_GONE),
        ("tenant", TENANT_SUSPENDED),
        ("key", KEY_ENDED),
    ],
)
def test_who_may_not_ask_any_more_is_answered_no_more(
    shared: Any, monkeypatch: Any, what: str, told: str
) -> None:
    nina = shared.nina.membership
    key = key_of(shared, "nina", "ask")
    task = start(key).json()["task_id"]

    def switch(is_off: bool) -> None:
        status = "suspended" if is_off else "active"
        abilities = ["upload"] if is_off else ["ask", "upload"]
        with unscoped(reason="tests"):
            match what:
                case "user":
                    User.objects.filter(pk=nina.user_id).update(is_active=not is_off)
                case "membership":
                    Membership.objects.filter(pk=nina.pk).update(status=status)
                case "ability":
                    Role.objects.filter(pk=nina.role_id).update(abilities=abilities)
                case "tenant":
                    Tenant.objects.filter(pk=nina.tenant_id).update(status=status)
                case "key":
                    ApiKey.objects.filter(membership=nina).update(revoked_at=timezone.now())

    one_after_another(monkeypatch, lambda: switch(True))
    try:
        with pytest.raises(Problem, match=re.escape(told)):
            run_job(shared.nina, task)
    finally:
        switch(False)
    job = send(shared.nina, "get", f"tasks/{task}").json()
    assert (job["state"], job["error"]) == ("FAILURE", told)
    assert [bool(answer["answer"]) for answer in job["result"]] == [True, False, False]
