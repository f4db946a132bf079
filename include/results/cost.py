"""Cost from the dated price book: per run, per token, per good token."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

from include.catalog.specs import PriceBook
from include.errors import ConfigurationError


def hourly_price(book: PriceBook, instance_type: str, day: dt.date) -> tuple[Decimal, str]:
    """Return USD per hour of one instance on a day, and the id of the price used.

    :raises ConfigurationError: when the book has no price in force for the type.
    """
    entries = [
        price
        for price in book.prices
        if price.instance_type == instance_type and dt.date.fromisoformat(price.since) <= day
    ]
    if not entries:
        known = ", ".join(sorted({price.instance_type for price in book.prices})) or "none"
        raise ConfigurationError(
            "PriceUnknown",
            f"no price in force on {day} for instance type {instance_type!r} in price book {book.id!r}",
            fix=f"add it to include/catalog/prices.yaml; priced types: {known}",
        )
    newest = max(entries, key=lambda price: price.since)
    return newest.hourly_usd, f"{book.id}:{instance_type}:{newest.since}:{newest.kind}"


def cost_usd(hourly: Decimal, seconds: float) -> Decimal:
    """Return USD for ``seconds`` at ``hourly`` USD per hour, to a hundredth of a cent."""
    return (hourly * Decimal(str(max(seconds, 0.0))) / Decimal(3600)).quantize(Decimal("0.0001"))


def usd_per_million(hourly: Decimal, tokens_per_second: float) -> float | None:
    """Return USD per million tokens at a throughput; ``None`` when nothing was produced."""
    if tokens_per_second <= 0:
        return None
    return float(hourly) / (tokens_per_second * 3600) * 1e6
