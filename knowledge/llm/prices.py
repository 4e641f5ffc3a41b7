"""What a call costs: rows with effective dates and prompt-length tiers, and exact decimal arithmetic."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from knowledge.llm.base import Usage

MILLION = Decimal(1_000_000)
BATCH_FACTOR = Decimal("0.5")
FREE_PROVIDERS = frozenset({"extractive"})
_SNAPSHOT = re.compile(r"-(?:\d{8}|\d{4}-\d{2}-\d{2})$")


@dataclass(frozen=True)
class PriceRow:
    """US dollars per million tokens, from `effective_from` on, for prompts of at least `min_prompt_tokens`.

    The length of a prompt counts what was read from and written to the cache, and it sets the price of the
    whole call, the answer included. The cache factors multiply the input price.
    """

    provider: str
    model: str
    effective_from: date
    min_prompt_tokens: int
    input_per_mtok: Decimal
    output_per_mtok: Decimal
    cache_write_factor: Decimal = Decimal("1.25")
    cache_read_factor: Decimal = Decimal("0.1")


def _row(
    provider: str,
    model: str,
    prices: tuple[str, str],
    *,
    since: date = date(2026, 1, 1),
    min_prompt_tokens: int = 0,
    cache_write: str = "1.25",
    cache_read: str = "0.1",
) -> PriceRow:
    return PriceRow(
        provider=provider,
        model=model,
        effective_from=since,
        min_prompt_tokens=min_prompt_tokens,
        input_per_mtok=Decimal(prices[0]),
        output_per_mtok=Decimal(prices[1]),
        cache_write_factor=Decimal(cache_write),
        cache_read_factor=Decimal(cache_read),
    )


# Vendors' list prices. A change of price adds the model's rows, each tier, under the new date, so that old
# answers keep their cost.
DEFAULT_PRICES: tuple[PriceRow, ...] = (
    _row("anthropic", "claude-sonnet-5-5", ("2", "10")),
    _row("anthropic", "claude-sonnet-5-5", ("2", "10"), since=date(2026, 10, 7), cache_read="0.05"),
    _row("anthropic", "claude-haiku-4-5", ("1", "5")),
    _row("anthropic", "claude-haiku-5-5", ("0.10", "0.50")),
    _row("anthropic", "claude-haiku-5-5", ("0.50", "2.50"), min_prompt_tokens=100_001),
    _row("anthropic", "claude-opus-5-5", ("4", "20"), cache_read="0.05"),
    _row("openai", "gpt-4o", ("2.50", "10"), cache_write="1", cache_read="0.5"),
    _row("openai", "gpt-4o-mini", ("0.15", "0.60"), cache_write="1", cache_read="0.5"),
    _row("azure", "gpt-4o", ("2.50", "10"), cache_write="1", cache_read="0.5"),
    _row("azure", "gpt-4o-mini", ("0.15", "0.60"), cache_write="1", cache_read="0.5"),
)


def price_usage(
    *,
    rows: Iterable[PriceRow],
    provider: str,
    model: str,
    usage: Usage,
    on: date,
    is_batch: bool = False,
) -> Decimal | None:
    """Prices one call.

    Args:
        rows: the price table.
        model: the name that was asked for or that the provider reports; a dated snapshot
            (`claude-haiku-4-5-20251001`, `gpt-4o-2024-08-06`) takes the price of its model where it has no row of its own.
        on: the day of the call.
        is_batch: it was part of a batch, which costs half.

    Returns:
        US dollars, exact and not rounded, or None when the table has no price for this model on that day.
    """
    if provider in FREE_PROVIDERS or usage == Usage():
        return Decimal(0)
    names = list(dict.fromkeys((model, _SNAPSHOT.sub("", model))))
    valid = [r for r in rows if r.provider == provider and r.effective_from <= on and r.model in names]
    for name in names:
        tiers = [r for r in valid if r.model == name and r.min_prompt_tokens <= usage.prompt_tokens]
        if tiers:
            price = _price(max(tiers, key=lambda r: (r.effective_from, r.min_prompt_tokens)), usage)
            return price * BATCH_FACTOR if is_batch else price
    return None


def _price(row: PriceRow, usage: Usage) -> Decimal:
    prompt = (
        Decimal(usage.input_tokens)
        + usage.cache_write_tokens * row.cache_write_factor
        + usage.cache_read_tokens * row.cache_read_factor
    )
    return (prompt * row.input_per_mtok + usage.output_tokens * row.output_per_mtok) / MILLION
