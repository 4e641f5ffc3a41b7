from datetime import date
from decimal import Decimal

import pytest

from knowledge.llm.base import Usage
from knowledge.llm.prices import DEFAULT_PRICES, PriceRow, price_usage

TODAY = date(2026, 11, 20)


def price(model: str, usage: Usage, *, provider: str = "anthropic", on: date = TODAY) -> Decimal | None:
    return price_usage(rows=DEFAULT_PRICES, provider=provider, model=model, usage=usage, on=on)


@pytest.mark.parametrize(
    ("provider", "model", "dollars"),
    [
        ("anthropic", "claude-sonnet-5-5", "0.012"),
        ("anthropic", "claude-haiku-4-5", "0.006"),
        ("anthropic", "claude-haiku-5-5", "0.0006"),
        ("anthropic", "claude-opus-5-5", "0.024"),
        ("openai", "gpt-4o", "0.0125"),
        ("openai", "gpt-4o-mini", "0.00075"),
    ],
)
def test_a_thousand_tokens_each_way(provider: str, model: str, dollars: str) -> None:
    assert price(model, Usage(1000, 1000), provider=provider) == Decimal(dollars)


def test_a_long_prompt_pays_its_tier_for_the_answer_too() -> None:
    assert price("claude-haiku-5-5", Usage(100_000, 1000)) == Decimal("0.0105")
    assert price("claude-haiku-5-5", Usage(100_001, 1000)) == Decimal("0.0525005")


def test_cached_tokens_count_towards_the_tier() -> None:
    short = price("claude-haiku-5-5", Usage(1, 0, cache_read_tokens=99_999))
    long = price("claude-haiku-5-5", Usage(1, 0, cache_read_tokens=100_000))
    assert short == Decimal("0.0010000") + Decimal("0.00000009")
    assert long == Decimal("0.0050005")


def test_cache_factors() -> None:
    usage = Usage(input_tokens=0, output_tokens=0, cache_read_tokens=1_000_000, cache_write_tokens=0)
    assert price("claude-haiku-4-5", usage) == Decimal("0.1")
    usage = Usage(cache_write_tokens=1_000_000)
    assert price("claude-haiku-4-5", usage) == Decimal("1.25")


def test_a_price_holds_from_its_date_on() -> None:
    reading = Usage(cache_read_tokens=1_000_000)
    assert price("claude-sonnet-5-5", reading, on=date(2026, 10, 6)) == Decimal("0.2")
    assert price("claude-sonnet-5-5", reading, on=date(2026, 10, 7)) == Decimal("0.1")


def test_a_dated_snapshot_takes_its_models_price_unless_it_has_its_own() -> None:
    usage = Usage(1_000_000, 0)
    assert price("claude-haiku-4-5-20251001", usage) == Decimal(1)
    own = PriceRow("anthropic", "claude-haiku-4-5-20251001", date(2026, 1, 1), 0, Decimal(7), Decimal(7))
    rows = (*DEFAULT_PRICES, own)
    priced = price_usage(
        rows=rows, provider="anthropic", model="claude-haiku-4-5-20251001", usage=usage, on=TODAY
    )
    assert priced == Decimal(7)


@pytest.mark.parametrize(
    ("provider", "model", "on"),
    [
        ("anthropic", "claude-unheard-of", TODAY),
        ("openai", "claude-haiku-5-5", TODAY),
        ("anthropic", "claude-haiku-5-5", date(2025, 1, 1)),
    ],
)
def test_unpriced_is_none_and_not_free(provider: str, model: str, on: date) -> None:
    assert price(model, Usage(1, 1), provider=provider, on=on) is None


def test_extractive_is_free() -> None:
    assert price("extractive", Usage(), provider="extractive") == 0
