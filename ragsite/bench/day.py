"""what a day of questions costs, with all that saves model calls and tokens, and without

Starts a stack of its own, as `bench load` does. The same questions, drawn by Zipf's law in several wordings, are asked
twice: as the product is, and with `cache: false`, without routing and with whole passages. Both costs are told as the
ledger has them, and as the provider's own count of tokens at list prices. Beside: citations, and whether the document
that a question was made from is among the sources.
"""

from argparse import ArgumentParser
from collections.abc import Iterable, Sequence
from typing import Any

from django.core.management.base import CommandError

from ragsite.bench import Figures, Say
from ragsite.bench._figures import is_good, list_price, show
from ragsite.bench._generator import Record
from ragsite.bench._ledger import count_ledger, read_ledger
from ragsite.bench._options import add_provider, add_stack, behaviour_of, stack_of
from ragsite.bench._questions import Asked, distinct_questions, draw_day, find_subjects, read_texts
from ragsite.bench._stack import Bench

PLAIN = {"routing": "off", "prompt_tokens": 0}
USUAL = {"routing": "", "prompt_tokens": None}


def add_arguments(parser: ArgumentParser) -> None:
    add_stack(parser)
    add_provider(parser, first_token=0.0)
    parser.add_argument("--questions", type=int, default=10_000)
    parser.add_argument(
        "--distinct", type=int, default=1500, help="things that are asked for, each in three wordings"
    )
    parser.add_argument("--zipf", type=float, default=1.0)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)


def measure(options: dict[str, Any], *, say: Say) -> Figures:
    """Figures of both days, and the ratio of their costs; below 1 what we save is worth it.

    Raises:
        CommandError: a value cannot be used, or a part does not start.
    """
    if min(options["questions"], options["distinct"], options["connections"]) < 1:
        raise CommandError("--questions, --distinct and --connections must be 1 or more.")
    with stack_of(options, say=say, members=options["connections"]) as bench:
        return compare(bench, options, say=say)


def render(figures: Figures) -> Iterable[str]:
    yield f"{'':30}{'with':>14}{'without':>14}"
    for name, value in figures["with"].items():
        if not isinstance(value, dict):
            yield f"{name:30}{show(value):>14}{show(figures['without'][name]):>14}"
    yield f"cost with ÷ without, by the ledger: {show(figures['ratio'])}"
    yield f"by the provider's count: {show(figures['provider_ratio'])}"


def compare(bench: Bench, options: dict[str, Any], *, say: Say) -> Figures:
    try:
        distinct = distinct_questions(find_subjects(read_texts(bench.folder)), count=options["distinct"])
    except ValueError as error:
        raise CommandError(str(error)) from None
    day = draw_day(distinct, count=options["questions"], zipf=options["zipf"], seed=options["seed"])
    found: Figures = {}
    for name, settings, body in (("with", USUAL, {}), ("without", PLAIN, {"cache": False})):
        say(f"asking {len(day)} questions {name} what saves")
        bench.rest("PATCH", "model-settings", settings)
        bench.forget()
        found[name] = ask(bench, options, day=day, body=body)
    bench.rest("PATCH", "model-settings", USUAL)
    ours, plain = found["with"], found["without"]
    meanings, texts = ({getattr(each, name) for each in day} for name in ("meaning", "text"))
    asked = {"questions": len(day), "meanings": len(meanings), "texts": len(texts)}
    return {
        "day": asked,
        **found,
        "ratio": ratio(ours["ledger_usd"], plain["ledger_usd"]),
        "provider_ratio": ratio(ours["provider_usd"], plain["provider_usd"]),
    }


def ratio(ours: float, plain: float) -> float | None:
    return round(ours / plain, 4) if plain else None


def ask(bench: Bench, options: dict[str, Any], *, day: Sequence[Asked], body: dict[str, Any]) -> Figures:
    bench.behave(**behaviour_of(options))
    before = read_ledger(bench)
    script = [each.text for each in day]
    records, _ = bench.run(
        bench.ours, connections=options["connections"], script=script, options=body, details="answers"
    )
    stats = bench.provider_stats()
    ledger = count_ledger(bench, before, calls=stats["calls"])
    return {
        **describe(records, {each.text: each.uri for each in day}),
        "model_calls": stats["calls"],
        "ledger_calls": ledger["calls"],
        "ledger_tokens": ledger["tokens"],
        "provider_tokens": sum(sum(usage.values()) for usage in stats["tokens"].values()),
        "ledger_usd": ledger["usd"],
        "provider_usd": round(list_price(stats["tokens"]), 6),
        "by_model": stats["tokens"],
    }


def describe(records: Sequence[Record], about: dict[str, str]) -> Figures:
    """How the questions were answered.

    Args:
        about: the document that a question was made from.
    """
    good = [record for record in records if is_good(record)]
    caches = {
        name: sum(record.cache == name for record in good)
        for name in ("exact", "semantic", "coalesced", "miss")
    }
    answered = [record for record in good if record.answer and record.answer["answered"]]
    ranks = [rank_of(record, about[record.question]) for record in good if record.answer]
    count = max(1, len(ranks))
    return {
        "questions": len(records),
        "errors": len(records) - len(good),
        **caches,
        "hit_rate": round(1 - caches["miss"] / len(good), 4) if good else 0.0,
        "weak": sum(record.is_weak for record in good),
        "answered": len(answered),
        "cited": round(
            sum(bool(r.answer and r.answer["citations"]) for r in answered) / max(1, len(answered)), 4
        ),
        "covered": round(sum(r.answer["covered"] for r in answered if r.answer) / max(1, len(answered)), 4),
        "source_found": round(sum(rank > 0 for rank in ranks) / count, 4),
        "source_mrr": round(sum(1 / rank for rank in ranks if rank) / count, 4),
    }


def rank_of(record: Record, uri: str) -> int:
    """The place of the document among the sources, from 1; 0: it is not there."""
    sources: list[str] = record.answer["sources"] if record.answer else []
    return next((place for place, source in enumerate(sources, 1) if source == uri), 0)
