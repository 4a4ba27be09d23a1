"""What an answer costs, by the price list of genai-prices."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

PRICED = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")


def price_of(model: str, provider: str | None, usage: Mapping[str, float]) -> Decimal | None:
    """US dollars, or None where nobody has a price for the model.

    Args:
        model: as the provider calls it ("gpt-5-mini-2025-08-07").
        provider: "openai", "anthropic", "google", …; None: by the model's name alone.
        usage: `input_tokens` (cached ones included), `output_tokens`, and if known `cache_read_tokens` and `cache_write_tokens`.
    """
    from genai_prices import Usage, calc_price

    counted = Usage(**{name: int(usage[name]) for name in PRICED if usage.get(name)})
    try:
        return calc_price(counted, model, provider_id=provider).total_price
    except (LookupError, ValueError):  # nobody knows the provider or the model, or the counts contradict each other
        return None
