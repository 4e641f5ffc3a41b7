"""how many machines a number of users needs, computed from what one question costs

Nothing is measured here: `bench load`, `bench streams` and `bench acceptance` tell what goes in. The busiest hour is taken
as `--peak` times the average hour of a working day.
"""

import math
from argparse import ArgumentParser
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from django.core.management.base import CommandError

from ragsite.bench import Figures, Say

HOURS_OF_DAY = 8


@dataclass(frozen=True)
class Costs:
    """What one question costs; the help of each is where its figure comes from.

    Attributes:
        hit_ms, miss_ms: work of the web process for a question that a cache answers, and for one that the model answers.
        stream_ms_per_s: work of the web process for a second of a stream that the model speaks in.
        database_ms: work of PostgreSQL for a question.
        model_s: seconds that an answer of the model takes.
        answer_kb, stream_kb: bytes in Redis of a kept answer, and of the events of one, which are kept for ten minutes.
        base_mb: Redis itself, queues and sessions.
        web_mb: memory of a web process.
    """

    hit_ms: float = 4.0
    miss_ms: float = 45.0
    stream_ms_per_s: float = 1.0
    database_ms: float = 12.0
    model_s: float = 2.0
    answer_kb: float = 16.0
    stream_kb: float = 20.0
    base_mb: float = 50.0
    web_mb: float = 400.0


@dataclass(frozen=True)
class Habits:
    """How people ask, and how far machines are filled.

    Attributes:
        questions: a person and working day.
        peak: the busiest hour beside the average one.
        repeats: share of questions that a cache answers.
        kept: seconds that an answer is kept.
        fill: share of a core that is used in the busiest hour; the rest is for what is uneven.
        connections: of a web process to the database, at most (`RAGSITE_DATABASE_CONNECTIONS` and four of the platform's).
    """

    questions: float = 40.0
    peak: float = 3.0
    repeats: float = 0.85
    kept: float = 86_400.0
    fill: float = 0.6
    connections: int = 16


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--users", default="50,5000,500000", help="numbers, parted by commas")
    for kind in (Costs, Habits):
        for each in fields(kind):
            name = each.name.replace("_", "-")
            parser.add_argument(f"--{name}", type=float, default=each.default)


def measure(options: dict[str, Any], *, say: Say) -> Figures:
    """What each number of users needs.

    Raises:
        CommandError: a value cannot be used.
    """
    try:
        users = [int(word) for word in options["users"].split(",")]
    except ValueError:
        raise CommandError("--users takes numbers parted by commas, for instance 50,5000.") from None
    costs = Costs(**{each.name: options[each.name] for each in fields(Costs)})
    habits = Habits(**{each.name: options[each.name] for each in fields(Habits)})
    if (
        min(asdict(costs).values()) < 0
        or not 0 < habits.fill <= 1
        or not 0 <= habits.repeats <= 1
        or min(users) < 1
    ):
        raise CommandError("Costs must not be negative, --fill and --repeats be shares, --users 1 or more.")
    needs = {str(number): plan(number, costs=costs, habits=habits) for number in users}
    return {"costs": asdict(costs), "habits": asdict(habits), "users": needs}


def render(figures: Figures) -> Iterable[str]:
    numbers = list(figures["users"])
    yield f"{'users':28}" + "".join(f"{number:>12}" for number in numbers)
    for name in figures["users"][numbers[0]]:
        cells = (figures["users"][number][name] for number in numbers)
        yield f"{name.replace('_', ' '):28}" + "".join(f"{cell:>12,}" for cell in cells)


def plan(users: int, *, costs: Costs, habits: Habits) -> Figures:
    """What so many users need in their busiest hour.

    A web process works on one core. Two processes are the fewest, so that one may be replaced; each has its own pool of
    connections, and where they are more than PostgreSQL should have (a few for each of its cores), a pooler stands between.
    Answers in Redis are those of the misses of their life; events of answers those of ten minutes.
    """
    day = users * habits.questions
    rate = day / (HOURS_OF_DAY * 3600) * habits.peak
    misses = rate * (1 - habits.repeats)
    streams = misses * costs.model_s
    web = rate * habits.repeats * costs.hit_ms + misses * costs.miss_ms + streams * costs.stream_ms_per_s
    cores = web / 1000 / habits.fill
    processes = max(2, math.ceil(cores))
    database = math.ceil(rate * costs.database_ms / 1000 / habits.fill) or 1
    kept = day * (1 - habits.repeats) * habits.kept / 86_400
    redis = costs.base_mb + kept * costs.answer_kb / 1024 + rate * 600 * costs.stream_kb / 1024
    return {
        "questions_per_s": round(rate, 2),
        "model_calls_per_s": round(misses, 2),
        "streams_at_once": math.ceil(streams),
        "web_processes": processes,
        "web_memory_mb": round(processes * costs.web_mb),
        "database_cores": database,
        "database_connections": processes * int(habits.connections),
        "redis_memory_mb": round(redis),
    }
