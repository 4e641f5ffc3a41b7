"""From records of questions to figures; pure. Times are milliseconds."""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from ragsite.bench import Figures
from ragsite.bench._generator import Record


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that so many of them do not exceed (nearest rank); nothing of nothing."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def spread(values: Sequence[float]) -> Figures:
    """How many there are, and their p50, p95, p99 and greatest, of seconds in milliseconds."""
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    found = {name: percentile(values, share) for name, share in shares.items()}
    return {
        "n": len(values),
        **{name: None if v is None else round(1000 * v, 2) for name, v in found.items()},
    }


def is_good(record: Record) -> bool:
    return 200 <= record.status < 300 and bool(record.cache)


def kind_of(record: Record) -> str:
    """``json`` or ``stream``, and by what it was answered: a layer of the cache, another's answer, the model, or, where the
    documents hold too little, nobody."""
    return f"{'stream' if record.is_stream else 'json'}:{'weak' if record.is_weak else record.cache}"


def model_seconds(log: Iterable[dict[str, Any]]) -> dict[str, list[float]]:
    """What the model itself took for each question, call by call; the provider's own measure."""
    found: dict[str, list[float]] = {}
    for call in log:
        found.setdefault(call["question"], []).append(call["seconds"])
    return found


def added_seconds(records: Iterable[Record], log: Iterable[dict[str, Any]]) -> list[float]:
    """What we add to the model's own time, of every question that was answered.

    Who waits for another's answer (coalesced) is counted with the model's time of that answer, but no more than they waited.
    """
    model = model_seconds(log)
    added = []
    for record in records:
        if not is_good(record):
            continue
        took = 0.0
        if record.cache in ("miss", "coalesced") and not record.is_weak:
            calls = model.get(record.question, [])
            # Asked several times without the cache, each has a call of its own.
            took = sum(calls) if record.problem else (min(calls) if calls else 0.0)
        added.append(max(0.0, record.seconds - took))
    return added


def summarise(
    records: Sequence[Record], *, log: Sequence[dict[str, Any]], cpu: float, peak: int, generator: float
) -> Figures:
    """One round against one server.

    Args:
        log: of the provider's calls meanwhile.
        cpu: seconds of work of the server's processes meanwhile; ``generator``: of what asked.
        peak: bytes that the largest of them has held.
    """
    good = [record for record in records if is_good(record)]
    begun = min((record.begun for record in records), default=0.0)
    ended = max((record.begun + record.seconds for record in records), default=0.0)
    kinds: dict[str, list[float]] = {}
    for record in good:
        kinds.setdefault(kind_of(record), []).append(record.seconds)
    caches = Counter(record.cache for record in good)
    firsts = [record.first for record in good if record.is_stream]
    problems = Counter(
        str(record.status or "lost") if record.status != 200 else "stream"
        for record in records
        if not is_good(record)
    )
    return {
        "requests": len(records),
        "answered": len(good),
        "errors": dict(problems),
        "seconds": round(ended - begun, 3),
        "rps": round(len(good) / (ended - begun), 2) if ended > begun else 0.0,
        "latency": spread([record.seconds for record in good]),
        "added": spread(added_seconds(records, log)),
        "sources": spread(firsts),
        "kinds": {kind: spread(times) for kind, times in sorted(kinds.items())},
        "caches": dict(caches),
        "hit_rate": round(1 - caches["miss"] / len(good), 4) if good else 0.0,
        "weak": sum(record.is_weak for record in good),
        "model_calls": len(log),
        "cpu_ms_per_request": round(1000 * cpu / max(1, len(records)), 3),
        "peak_rss_mb": round(peak / 2**20, 1),
        "generator_ms_per_request": round(1000 * generator / max(1, len(records)), 3),
    }


def median_of(rounds: Sequence[Figures]) -> Figures:
    """The median of every figure that is a number, also of those further down; counts are summed."""
    found: Figures = {}
    for name in dict.fromkeys(name for each in rounds for name in each):
        values = [each[name] for each in rounds if each.get(name) is not None]
        if values and all(isinstance(value, dict) for value in values):
            found[name] = median_of(values)
        elif values and name in ("n", "requests", "answered", "weak", "model_calls"):
            found[name] = sum(values)
        elif values:
            found[name] = round(statistics.median(values), 3)
        else:
            found[name] = None
    return found


def list_price(tokens: dict[str, dict[str, int]]) -> float:
    """US dollars at list price of what the provider has counted, by model.

    Raises:
        ValueError: a model without a price.
    """
    from knowledge.llm.base import Usage
    from knowledge.llm.prices import DEFAULT_PRICES, price_usage

    total = 0.0
    for model, counted in tokens.items():
        usage = Usage(
            input_tokens=counted.get("input_tokens", 0),
            output_tokens=counted.get("output_tokens", 0),
            cache_read_tokens=counted.get("cache_read_input_tokens", 0),
            cache_write_tokens=counted.get("cache_creation_input_tokens", 0),
        )
        # All calls of a model at once would be one long prompt: the tier is that of a single call.
        rows = [row for row in DEFAULT_PRICES if not row.min_prompt_tokens]
        cost = price_usage(
            rows=rows, provider="anthropic", model=model, usage=usage, on=datetime.now(UTC).date()
        )
        if cost is None:
            raise ValueError(f"{model} has no price")
        total += float(cost)
    return total


def show(value: Any) -> str:
    """For people: four digits of a number at most, and nothing where there is none."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)
