"""many streams at once: whether all come to their end, whole, and how evenly, beside one stream alone

Starts a stack of its own, as `bench load` does. Every stream asks something new of a model that speaks at a steady rate;
its text is compared with what the model has sent. Gaps are the times between two parts of an answer. `most_at_once` tells
how many were under way together: answers must be longer (`--answer-tokens` ÷ `--tokens-per-second`) than it takes to begin
all of them.
"""

import itertools
from argparse import ArgumentParser
from collections.abc import Iterable, Sequence
from typing import Any

from django.core.management.base import CommandError

from ragsite.bench import Figures, Say
from ragsite.bench._figures import is_good, percentile, show, spread
from ragsite.bench._generator import Record
from ragsite.bench._options import add_provider, add_stack, behaviour_of, stack_of
from ragsite.bench._questions import find_subjects, new_questions, read_texts
from ragsite.bench._stack import Bench


def add_arguments(parser: ArgumentParser) -> None:
    add_stack(parser)
    add_provider(parser, first_token=0.6, tokens_per_second=20.0, answer_tokens=1200)
    parser.add_argument("--streams", type=int, default=1000, help="at once")
    parser.add_argument("--alone", type=int, default=5, help="streams one after another, to compare with")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--ramp", type=float, default=40.0, help="seconds over which the streams begin")


def measure(options: dict[str, Any], *, say: Say) -> Figures:
    """Figures of one stream alone and of all at once, and how many times longer their gaps are.

    Raises:
        CommandError: a value cannot be used, or a part does not start.
    """
    if min(options["streams"], options["alone"], options["rounds"]) < 1 or options["tokens_per_second"] <= 0:
        raise CommandError("--streams, --alone, --rounds and --tokens-per-second must be more than 0.")
    # An answer that is long enough for all to be under way at once would run into the limits of a question's time.
    seconds = {"RAGSITE_CALL_SECONDS": "600", "RAGSITE_ANSWER_SECONDS": "600"}
    with stack_of(options, say=say, members=min(options["streams"], 200), **seconds) as bench:
        return compare(bench, options, say=say)


def render(figures: Figures) -> Iterable[str]:
    yield f"{'':26}{'alone':>12}{'at once':>12}"
    for name, value in figures["alone"].items():
        other = figures["at_once"][name]
        if isinstance(value, dict):
            for key in value:
                yield f"{name + ' ' + key:26}{show(value[key]):>12}{show(other[key]):>12}"
        else:
            yield f"{name:26}{show(value):>12}{show(other):>12}"
    yield f"p99 gap at once ÷ alone: {show(figures['gap_ratio'])}"


def compare(bench: Bench, options: dict[str, Any], *, say: Say) -> Figures:
    bench.forget()
    new = new_questions(find_subjects(read_texts(bench.folder)))
    bench.behave()
    bench.run(
        bench.ours, connections=1, script=list(itertools.islice(new, 3)), streams=1.0
    )  # what is first takes longer
    alone: list[Figures] = []
    at_once: list[Figures] = []
    for _ in range(options["rounds"]):
        for count, ramp, found in ((1, 0.0, alone), (options["streams"], options["ramp"], at_once)):
            script = list(itertools.islice(new, options["alone"] if count == 1 else count))
            found.append(ask(bench, options, script=script, connections=count, ramp=ramp))
            latest = found[-1]
            gap = show(latest["gap"]["p99"])
            say(f"{count} at once: {latest['whole']} of {latest['streams']} whole, gap p99 {gap} ms")
    first, second = alone[-1], at_once[-1]
    if len(alone) > 1:
        # The round of the middle ratio stands for all.
        order = sorted(range(len(alone)), key=lambda at: at_once[at]["gap"]["p99"] / alone[at]["gap"]["p99"])
        first, second = alone[order[len(order) // 2]], at_once[order[len(order) // 2]]
    ratio = (
        second["gap"]["p99"] / first["gap"]["p99"] if first["gap"]["p99"] and second["gap"]["p99"] else None
    )
    return {
        "alone": first,
        "at_once": second,
        "gap_ratio": None if ratio is None else round(ratio, 3),
        "rounds": {"alone": alone, "at_once": at_once},
    }


def ask(
    bench: Bench, options: dict[str, Any], *, script: list[str], connections: int, ramp: float
) -> Figures:
    bench.behave(**behaviour_of(options))
    before = bench.ours.measure()
    records, generator = bench.run(
        bench.ours, connections=connections, script=script, streams=1.0, ramp=ramp, details="streams"
    )
    after = bench.ours.measure()
    stats = bench.provider_stats(calls=True)
    seconds = max(record.begun + record.seconds for record in records) - min(r.begun for r in records)
    return describe(records, stats) | {
        "cpu_share": round((after.cpu - before.cpu) / seconds, 3),
        "generator_share": round(generator / seconds, 3),
        "peak_rss_mb": round(after.peak / 2**20, 1),
    }


def describe(records: Sequence[Record], stats: dict[str, Any]) -> Figures:
    """What became of the streams, compared with what the provider has sent."""
    sent = {call["question"]: call for call in stats["log"]}
    good = [record for record in records if is_good(record)]
    asked = [record for record in good if record.question in sent]
    whole = [record for record in asked if squeeze(record.text) == squeeze(sent[record.question]["text"])]
    gaps = [later - earlier for record in good for earlier, later in itertools.pairwise(record.parts)]
    parts = sum(len(record.parts) for record in good)
    added = [max(0.0, record.seconds - sent[record.question]["seconds"]) for record in asked]
    problems = [record.problem for record in records if not is_good(record)]
    return {
        "streams": len(records),
        "dropped": len(records) - len(good),
        "whole": len(whole),
        "incomplete": len(asked) - len(whole),
        # Nothing was asked of the model: the documents hold too little, or the answer was there.
        "unasked": len(good) - len(asked),
        "restarts": sum(record.problem == "restart" for record in good),
        "problems": sorted(set(problems))[:3],
        "most_at_once": stats["most_open"],
        "parts_per_stream": round(parts / len(good), 1) if good else 0.0,
        "gap": spread(gaps),
        "added": spread(added),
        "sources": spread([record.first for record in good]),
        "text_chars": percentile([float(len(record.text)) for record in good], 0.5),
    }


def squeeze(text: str) -> str:
    return "".join(text.split())
