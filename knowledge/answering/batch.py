"""Many questions as one job: answered by a worker one after another, a few at a time, as their asker.

Each takes its part of the asker's rate limits, and waits for it; half of them is left for questions that somebody waits for.
"""

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from asgiref.sync import async_to_sync

from knowledge.answering.collect import collect_answer
from knowledge.answering.journey import Question
from knowledge.answering.record import present_answers
from knowledge.answering.services import gateway
from knowledge.answering.spending import usual_tokens
from knowledge.config import answer_config
from knowledge.ingestion.job_run import JobRun
from knowledge.ingestion.jobs import create_job
from knowledge.ingestion.queue import Turn
from knowledge.models import Answer, Job
from ragsite.core.background import wait_for_background
from ragsite.core.hops import run_db
from ragsite.core.problems import Problem
from tenants.access import Principal
from tenants.audit import record_by
from tenants.models import ApiKey, Membership
from tenants.rates import seconds_to_leave_half, take_when_there
from tenants.rest import problem_of
from tenants.scope import atomic, enter

AT_ONCE = 4
STORING_SECONDS = 10.0
LOOK_SECONDS = 0.5  # whoever cancels sees it end within two seconds
ASKER_GONE = "Whoever asked is no active member any more, or may not ask. Have an admin look at the role, and ask again."
TENANT_SUSPENDED = "The tenant is suspended. Ask again when it is not."
KEY_ENDED = "The API key that asked was revoked or has expired. Ask again with another."


def start_batch(*, principal: Principal, questions: Sequence[str], options: dict[str, Any]) -> Job:
    """A job that answers the questions. ``options``: ``k``, ``collections``, ``tags``, ``cache``, for all of them.

    What an API key may not do, its job may not do either: its abilities are kept with it.
    """
    request = {
        "questions": list(questions),
        "options": options,
        "abilities": sorted(principal.abilities),
        "credential": principal.credential,
    }
    with atomic():
        job = create_job(kind=Job.Kind.QUESTIONS, user=principal.membership.user, request=request)
        record_by(principal, "question.batch", job, {"questions": len(questions)})
    return job


def answer_batch(run: JobRun, *, turn: Turn | None = None) -> None:
    """Answers what is not answered yet; a question that cannot be answered fails alone.

    Args:
        turn: how long it may keep others waiting while the limits keep it waiting.

    Raises:
        JobCancelled, JobLost, JobGivesWay: what has been answered so far stays.
        Problem: the asker may not ask any more; what has been answered so far stays.
    """
    async_to_sync(_answer_all)(run, read_asker(run.job), turn)


def read_asker(job: Job) -> Principal:
    """Who asks, with what they may do and read at this moment.

    Raises:
        Problem: 403, and why nothing more is answered.
    """
    membership = (
        Membership.objects.filter(user_id=job.user_id, user__is_active=True, status=Membership.Status.ACTIVE)
        .select_related("user", "role", "tenant")
        .first()
    )
    abilities = frozenset(membership.role.abilities) if membership else frozenset()
    abilities &= frozenset(job.request["abilities"])
    if membership is None or "ask" not in abilities:
        raise Problem(403, "forbidden", ASKER_GONE)
    if not membership.tenant.is_active:
        raise Problem(403, "forbidden", TENANT_SUSPENDED)
    credential = job.request["credential"]
    key = ApiKey.objects.filter(pk=credential).first() if credential else None  # a sign-in may end meanwhile
    if key is not None and not key.is_live:
        raise Problem(403, "forbidden", KEY_ENDED)
    return Principal(membership=membership, method="job", abilities=abilities, credential=credential)


def id_of(job: Job, at: int) -> UUID:
    """The request id of a question of a batch: the same when the job is taken up again."""
    return uuid.uuid5(job.pk, str(at))


def _settled(ids: list[UUID]) -> Any:
    """Those that are not asked again. What was cut off with the run before is."""
    return Answer.objects.filter(pk__in=ids).exclude(status=Answer.CUT_OFF)


async def _answer_all(run: JobRun, asker: Principal, turn: Turn | None) -> None:
    job = run.job
    questions: list[str] = job.request["questions"]
    ids = [id_of(job, at) for at in range(len(questions))]
    done = await run_db(lambda: dict(_settled(ids).values_list("pk", "status")))
    answered, failed = len(done), sum(status == "error" for status in done.values())
    config, gate = answer_config(), gateway()
    free = asyncio.Semaphore(AT_ONCE)
    under_way: set[int] = set()
    pause = 0.0  # before the next question: the one before has left less than half of a limit

    def tell(**counts: Any) -> None:
        run.report(
            step=f"{answered} of {len(questions)}", progress=100 * answered // len(questions), **counts
        )

    async def answer(at: int) -> None:
        nonlocal answered, pause
        async with free:
            await asyncio.sleep(pause)
            await run_db(run.check, now=True)
            grant = await take_when_there(asker, tokens=usual_tokens(config))
            pause = seconds_to_leave_half(grant)
            principal = await run_db(read_asker, job)
            under_way.add(at)
            options = job.request["options"]
            question = Question(
                request_id=ids[at],
                text=questions[at],
                endpoint="batch",
                k=options.get("k"),
                collections=tuple(options.get("collections", ())),
                tags=tuple(options.get("tags", ())),
                use_cache=options.get("cache", True),
                may_go_on=False,  # the loop ends with the job
                grant=grant,
            )
            try:
                with enter(principal.scope()):
                    await collect_answer(question=question, principal=principal, config=config, gateway=gate)
            except Exception as error:
                problem = problem_of(error)
                if problem is None:
                    raise
                answered += 1
                await run_db(run.add_error, document=_name(at), reason=problem.detail)
            else:
                answered += 1
                await run_db(tell, changed=1)
            finally:
                under_way.discard(at)

    await run_db(
        run.report,
        step=f"{answered} of {len(questions)}",
        seen=len(questions),
        changed=answered - failed,
        failed=failed,
    )

    async def watch() -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await run_db(run.check, now=True)
            if turn is not None and not under_way:
                await run_db(turn.give_way)

    tasks = [asyncio.ensure_future(answer(at)) for at in range(len(questions)) if ids[at] not in done]
    work: asyncio.Future[Any] = asyncio.gather(*tasks)
    watching: asyncio.Future[Any] = asyncio.ensure_future(watch())
    try:
        await asyncio.wait({work, watching}, return_when=asyncio.FIRST_COMPLETED)
        await (work if work.done() else watching)
    finally:
        watching.cancel()
        for task in tasks:  # a cancelled job ends the calls under way, which are settled like any other
            task.cancel()
        await asyncio.gather(work, watching, *tasks, return_exceptions=True)
        await gate.close()
        await wait_for_background(seconds=STORING_SECONDS)  # what was cut off is stored, and paid for


def _name(at: int) -> str:
    """What a job says of a question: others may read that, who may not read the question."""
    return f"question {at + 1}"


def present_batch(job: Job, *, principal: Principal) -> list[dict[str, Any]] | None:
    """The answers of a batch, in the order of its questions, as its asker may see them now; ``None`` for others, and
    for a key that may not ask.

    A question that has none (yet) is told with `answer` null, and with the reason where it failed.
    """
    membership = principal.membership
    if job.user_id != membership.user_id or not principal.may("ask"):
        return None
    questions: list[str] = job.request["questions"]
    rows = list(
        Answer.objects.visible_to(membership).filter(pk__in=[id_of(job, at) for at in range(len(questions))])
    )
    shown = dict(zip([row.pk for row in rows], present_answers(rows, membership=membership), strict=True))
    reasons = {error["document"]: error["reason"] for error in job.errors}
    results = []
    for at, question in enumerate(questions):
        pk = id_of(job, at)
        missing = {
            "request_id": str(pk),
            "question": question,
            "answer": None,
            "error": reasons.get(_name(at)),
        }
        results.append(shown.get(pk, missing))
    return results
