"""The product's own account of model calls, read as its clients read it."""

import time
from typing import Any

from ragsite.bench import Figures
from ragsite.bench._stack import Bench

SETTLE_SECONDS = 30.0
FREE = "extractive"


def read_ledger(bench: Bench) -> dict[str, Figures]:
    """Calls, tokens and US dollars so far, by model."""
    found: dict[str, Any] = bench.rest("GET", "costs")
    return {
        row["model"]: {
            "calls": row["calls"],
            "tokens": sum(
                row[name] or 0
                for name in ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
            ),
            "usd": float(row["cost"] or 0),
        }
        for row in found["by_model"]
        if row["model"] != FREE
    }


def count_ledger(bench: Bench, before: dict[str, Figures], *, calls: int) -> Figures:
    """What was added since; waits a while until all calls are in it, as some are written after their answer."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        after = read_ledger(bench)
        added = {
            name: sum(each[name] for each in after.values()) - sum(each[name] for each in before.values())
            for name in ("calls", "tokens", "usd")
        }
        if added["calls"] >= calls or time.monotonic() > deadline:
            return {**added, "usd": round(added["usd"], 6)}
        time.sleep(0.3)
