"""a team's day compressed into minutes, at its own traffic and at twice that: hits, latency, errors, dollars a month

Starts a stack of its own, as `bench load` does, with as many made documents. Questions come at random times whether or not
others have been answered; of them a share has been asked before, by Zipf's law. The month's cost is that of the day at list
prices, by the provider's own count of tokens, of the round at the team's own traffic. `--peer` as in `bench load`.
"""

import itertools
from argparse import ArgumentParser
from collections.abc import Iterable
from typing import Any

from django.core.management.base import CommandError

from ragsite.bench import Figures, Say
from ragsite.bench._figures import list_price, show, summarise
from ragsite.bench._ledger import count_ledger, read_ledger
from ragsite.bench._options import add_peer, add_provider, add_stack, behaviour_of, stack_of
from ragsite.bench._questions import distinct_questions, find_subjects, new_questions, read_texts
from ragsite.bench._stack import Bench, Server

DAYS_OF_MONTH = 30


def add_arguments(parser: ArgumentParser) -> None:
    add_stack(parser, documents=5000)
    add_provider(parser, first_token=0.6, tokens_per_second=80.0)
    add_peer(parser)
    parser.add_argument("--engineers", type=int, default=50)
    parser.add_argument("--questions", type=int, default=2000, help="of a day, of all of them together")
    parser.add_argument("--minutes", type=float, default=2.0, help="that the day takes here")
    parser.add_argument("--traffic", default="1,2", help="how many times as many questions in the same time")
    parser.add_argument(
        "--repeats", type=float, default=0.85, help="share of questions that were asked before"
    )
    parser.add_argument("--known", type=int, default=200, help="questions that are repeated")
    parser.add_argument("--zipf", type=float, default=1.0)
    parser.add_argument(
        "--streams", type=float, default=0.5, help="share of questions asked as streams (ours alone)"
    )
    parser.add_argument("--seed", type=int, default=1)


def measure(options: dict[str, Any], *, say: Say) -> Figures:
    """Figures of each server at each traffic.

    Raises:
        CommandError: a value cannot be used, or a part does not start.
    """
    try:
        traffic = [float(word) for word in options["traffic"].split(",")]
    except ValueError:
        raise CommandError("--traffic takes numbers parted by commas, for instance 1,2.") from None
    if (
        min(options["engineers"], options["questions"], options["known"]) < 1
        or min(options["minutes"], *traffic) <= 0
    ):
        raise CommandError("--engineers, --questions, --known, --minutes and --traffic must be more than 0.")
    with stack_of(options, say=say, members=options["engineers"]) as bench:
        return run_day(bench, options, traffic=traffic, say=say)


def render(figures: Figures) -> Iterable[str]:
    yield (
        f"{'server':8}{'traffic':>8}{'asked/s':>9}{'answered':>10}{'errors':>8}{'hits':>8}{'p50 ms':>9}{'p95 ms':>9}"
        f"{'added p95':>11}{'CPU ms':>8}{'model calls':>13}{'$ a month':>11}"
    )
    for name, rounds in figures["servers"].items():
        for traffic, each in rounds.items():
            latency = each["latency"]
            yield (
                f"{name:8}{traffic:>8}{each['asked_per_s']:9.1f}{each['answered']:10}{each['requests'] - each['answered']:8}"
                f"{each['hit_rate']:8.3f}{show(latency['p50']):>9}{show(latency['p95']):>9}{show(each['added']['p95']):>11}"
                f"{each['cpu_ms_per_request']:8.2f}{each['model_calls']:13}{each['month_usd']:11.2f}"
            )
    yield f"{figures['engineers']} engineers, {figures['questions']} questions a day; a month of {DAYS_OF_MONTH} such days"


def run_day(bench: Bench, options: dict[str, Any], *, traffic: list[float], say: Say) -> Figures:
    bench.forget()
    subjects = find_subjects(read_texts(bench.folder))
    try:
        known = [each[0].text for each in distinct_questions(subjects, count=options["known"])]
    except ValueError as error:
        raise CommandError(str(error)) from None
    new = new_questions(subjects)
    found: dict[str, dict[str, Figures]] = {}
    for server in (bench.ours, *bench.others.values()):
        bench.behave()
        bench.run(server, connections=min(8, options["engineers"]), script=known)
        for times in traffic:
            count = round(options["questions"] * times)
            fresh = list(itertools.islice(new, count))
            each = ask(bench, server, options, count=count, known=known, new=fresh, times=times)
            found.setdefault(server.name, {})[f"{times:g}"] = each
            say(
                f"{server.name} at {times:g}×: p95 {show(each['latency']['p95'])} ms, errors {each['errors']}"
            )
    kept = ("engineers", "questions", "minutes", "repeats", "known", "first_token", "tokens_per_second")
    return {**{name: options[name] for name in kept}, "documents": options["documents"], "servers": found}


def ask(
    bench: Bench,
    server: Server,
    options: dict[str, Any],
    *,
    count: int,
    known: list[str],
    new: list[str],
    times: float,
) -> Figures:
    """So many questions within the minutes, at random times."""
    bench.behave(**behaviour_of(options))
    ours = server.name == "ours"
    ledger = read_ledger(bench) if ours else {}
    before = server.measure()
    records, generator = bench.run(
        server,
        # As many people may be waiting for an answer at once as there are, and twice as many of twice the traffic.
        connections=max(1, round(options["engineers"] * max(1.0, times))),
        seconds=60 * options["minutes"],
        rate=count / (60 * options["minutes"]),
        known=known,
        new=new,
        repeats=options["repeats"],
        zipf=options["zipf"],
        streams=options["streams"] if ours else 0.0,
        seed=options["seed"],
    )
    after = server.measure()
    stats = bench.provider_stats(calls=True)
    found = summarise(
        records, log=stats["log"], cpu=after.cpu - before.cpu, peak=after.peak, generator=generator
    )
    day = list_price(stats["tokens"]) if ours else peer_price(stats["tokens"])
    return found | {
        "asked_per_s": round(len(records) / (60 * options["minutes"]), 2),
        "day_usd": round(day, 6),
        "month_usd": round(day * DAYS_OF_MONTH, 4),
        "ledger": count_ledger(bench, ledger, calls=stats["calls"]) if ours else None,
        "failures": stats["failures"],
    }


def peer_price(tokens: dict[str, dict[str, int]]) -> float:
    """The peer's model has left the price lists: it is counted at what our large one costs."""
    return sum(list_price({"claude-sonnet-5-5": each}) for each in tokens.values())
