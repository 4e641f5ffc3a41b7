"""the answer path under load: throughput, latency by kind, errors, the servers' work and memory, beside another program

Starts a stack of its own (data folder, servers, processes as `up` runs them) and a stand-in for the model provider whose
latency and failures are set here. Of the questions a share is repeated, by Zipf's law, the others are new each. Rounds
of all servers take turns; the figures are medians over the rounds.

`--peer` is a folder with `app.py` and `index.py`, run by `--peer-python`, or the address of such a server that runs already
and has its model at `--provider-port`. `--null` adds a server that answers the same bytes to everybody, to show what the
measuring itself costs. `--growth 10,100,1000` goes through numbers of users instead, and shows where
throughput ends to grow.
"""

import itertools
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from typing import Any

from django.core.management.base import CommandError

from ragsite.bench import Figures, Say
from ragsite.bench._figures import median_of, show, summarise
from ragsite.bench._generator import Record
from ragsite.bench._options import add_peer, add_provider, add_stack, behaviour_of, stack_of
from ragsite.bench._questions import distinct_questions, find_subjects, new_questions, read_texts
from ragsite.bench._stack import Bench, Server

KNEE = 0.9
NEW_A_SECOND = 600  # at most; nothing that calls a model comes near


def add_arguments(parser: ArgumentParser) -> None:
    add_stack(parser)
    add_provider(parser, first_token=0.6)
    add_peer(parser)
    parser.add_argument("--connections", type=int, default=100, help="questions at once")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--repeats", type=float, default=0.85, help="share of questions that were asked before"
    )
    parser.add_argument("--known", type=int, default=200, help="questions that are repeated")
    parser.add_argument(
        "--zipf", type=float, default=1.0, help="exponent: how much the first of them is asked more"
    )
    parser.add_argument(
        "--streams", type=float, default=0.2, help="share of questions asked as streams (ours alone)"
    )
    parser.add_argument(
        "--think",
        type=float,
        default=0.0,
        help="about how many seconds between an answer and the next question",
    )
    parser.add_argument("--growth", help="numbers of users, parted by commas")
    parser.add_argument("--null", action="store_true")
    parser.add_argument("--seed", type=int, default=1)


def measure(options: dict[str, Any], *, say: Say) -> Figures:
    """Figures of every server's rounds, their medians, and ratios; above 1 ours is better.

    Raises:
        CommandError: a value cannot be used, or a part does not start.
    """
    growth = [int(word) for word in (options["growth"] or "").split(",") if word]
    options["connections"] = max(growth, default=options["connections"])
    if (
        min(options["connections"], options["rounds"], options["known"], *growth) < 1
        or options["seconds"] <= 0
    ):
        raise CommandError("--connections, --rounds, --known, --growth and --seconds must be more than 0.")
    with stack_of(options, say=say, members=options["connections"]) as bench:
        work = Work(bench, options, say=say)
        return work.grow(growth) if growth else work.compare()


def render(figures: Figures) -> Iterable[str]:
    if "growth" in figures:
        head = f"{'users':>7} {'rps':>9} {'p50 ms':>9} {'p95 ms':>9} {'p99 ms':>9}"
        yield head + f" {'added p95':>10} {'errors':>7} {'CPU ms':>7}"
        for users, each in figures["growth"].items():
            knee = "  ← knee" if int(users) == figures["knee"] else ""
            latency = each["latency"]
            cells = [show(latency[name]) for name in ("p50", "p95", "p99")] + [show(each["added"]["p95"])]
            yield (
                f"{users:>7} {each['rps']:9.1f} {cells[0]:>9} {cells[1]:>9} {cells[2]:>9} {cells[3]:>10}"
                f" {each['requests'] - each['answered']:7} {each['cpu_ms_per_request']:7.2f}{knee}"
            )
        return
    names = list(figures["medians"])
    yield f"{'':28}" + "".join(f"{name:>12}" for name in names)
    rows = dict.fromkeys(key for each in figures["medians"].values() for key in flatten(each))
    for row in rows:
        cells = [show(flatten(figures["medians"][name]).get(row)) for name in names]
        yield f"{row:28}" + "".join(f"{cell:>12}" for cell in cells)
    for name, ratios in figures["ratio"].items():
        yield f"ours beside {name}: " + ", ".join(f"{key} {value:.2f}" for key, value in ratios.items())


def flatten(figures: Figures, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in figures.items():
        flat |= flatten(value, f"{prefix}{name} ") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


class Work:
    """Asks the servers of a stack in turns."""

    def __init__(self, bench: Bench, options: dict[str, Any], *, say: Say) -> None:
        self._bench, self._options, self._say = bench, options, say
        bench.forget()
        subjects = find_subjects(read_texts(bench.folder))
        try:
            self._known = [each[0].text for each in distinct_questions(subjects, count=options["known"])]
        except ValueError as error:
            raise CommandError(str(error)) from None
        self._new: Iterator[str] = new_questions(subjects)
        self._seeds = itertools.count(options["seed"])

    def _warm(self, server: Server, *, connections: int) -> None:
        """What is repeated has been asked before, and everybody has asked within the minute for which processes remember
        who may ask and what they were answered."""
        if self._options["repeats"] <= 0 or server.name == "null":
            return
        self._bench.behave()
        rest = [self._known[0]] * connections
        records, _ = self._bench.run(server, connections=min(8, connections), script=self._known)
        records += self._bench.run(server, connections=connections, script=[*self._known, *rest])[0]
        if bad := [record for record in records if record.status != 200]:
            raise CommandError(f"{server.name} answers {bad[0].status}: {bad[0].problem}")

    def ask(self, server: Server, *, connections: int, seconds: float = 0) -> Figures:
        options, bench = self._options, self._bench
        self._warm(server, connections=connections)
        bench.behave(**behaviour_of(options), seed=next(self._seeds))
        before = server.measure()
        records, generator = self._run(server, connections=connections, seconds=seconds or options["seconds"])
        after = server.measure()
        stats = bench.provider_stats(calls=True)
        found = summarise(
            records, log=stats["log"], cpu=after.cpu - before.cpu, peak=after.peak, generator=generator
        )
        return found | {"provider": {name: stats[name] for name in ("answered", "failures", "left")}}

    def _run(self, server: Server, *, connections: int, seconds: float) -> tuple[list[Record], float]:
        options = self._options
        # A server that does nothing would soon be through with what is new.
        repeats = 1.0 if server.name == "null" else options["repeats"]
        count = 0 if repeats == 1 else int(seconds * NEW_A_SECOND) + connections
        return self._bench.run(
            server,
            connections=connections,
            seconds=seconds,
            known=self._known,
            new=list(itertools.islice(self._new, count)),
            repeats=repeats,
            zipf=options["zipf"],
            streams=options["streams"] if server.name == "ours" else 0.0,
            think=options["think"],
            ramp=options["think"],  # who thinks does not begin at the same moment as all others
            seed=next(self._seeds),
        )

    def compare(self) -> Figures:
        servers = [self._bench.ours, *self._bench.others.values()]
        rounds: dict[str, list[Figures]] = {server.name: [] for server in servers}
        for number in range(self._options["rounds"]):
            for server in servers:
                found = self.ask(server, connections=self._options["connections"])
                rounds[server.name].append(found)
                self._say(
                    f"round {number + 1}, {server.name}: {found['rps']:.1f} a second, p95 {show(found['latency']['p95'])} ms"
                )
        medians = {name: median_of(each) for name, each in rounds.items()}
        ratio = {name: compare(medians["ours"], each) for name, each in medians.items() if name != "ours"}
        kept = (
            "connections",
            "seconds",
            "rounds",
            "repeats",
            "known",
            "zipf",
            "streams",
            "think",
            "first_token",
        )
        settings = {name: self._options[name] for name in kept}
        return {"settings": settings, "rounds": rounds, "medians": medians, "ratio": ratio}

    def grow(self, users: list[int]) -> Figures:
        ours, growth = self._bench.ours, {}
        for number in users:
            rounds = [self.ask(ours, connections=number) for _ in range(self._options["rounds"])]
            growth[str(number)] = found = median_of(rounds)
            self._say(f"{number} users: {found['rps']:.1f} a second, p95 {show(found['latency']['p95'])} ms")
        return {"growth": growth, "knee": find_knee({int(n): each["rps"] for n, each in growth.items()})}


def compare(ours: Figures, other: Figures) -> Figures:
    """Of throughput ours over theirs, of times theirs over ours."""
    found = {"rps": ours["rps"] / other["rps"]} if other["rps"] else {}
    for name in ("p50", "p95", "p99"):
        if ours["latency"][name] and other["latency"][name]:
            found[name] = other["latency"][name] / ours["latency"][name]
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def find_knee(rates: dict[int, float]) -> int:
    """The fewest users with which nearly the best throughput is reached: more of them only wait longer."""
    best = max(rates.values())
    return min(users for users, rate in rates.items() if rate >= KNEE * best)
