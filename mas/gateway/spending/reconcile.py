"""Whether the ledger and the Claude CLI agree on what an attempt took. Pure."""

from mas.model import Usage

_KINDS = {
    "input_tokens": "input tokens",
    "output_tokens": "output tokens",
    "cache_read_tokens": "cache read tokens",
    "cache_write_tokens": "cache write tokens",
}
_COST_TOLERANCE = 0.01
_LEAST_USD = 1e-6
"""Below what one token costs: sums of floats differ by less."""


def reconcile(ledger: Usage, reported: Usage) -> str | None:
    """None where both agree, else a line that says what differs and by how much.

    Tokens are to be equal and the cost within 1 %. Where the ledger estimated some of
    the output, that may be off by as much again, and the cost by its share. Where a
    price is not known to the ledger, costs are not compared: the CLI makes one up.
    """
    faults = [
        f"{words}: {counted} counted, {said} reported ({counted - said:+})"
        for name, words in _KINDS.items()
        if abs((counted := getattr(ledger, name)) - (said := getattr(reported, name)))
        > (ledger.estimated_tokens if name == "output_tokens" else 0)
    ]
    if not ledger.unpriced_tokens and not _costs_agree(ledger, reported):
        difference = ledger.cost_usd - reported.cost_usd
        faults.append(
            f"cost: ${ledger.cost_usd:.6f} counted, ${reported.cost_usd:.6f} reported "
            f"({difference:+.6f})"
        )
    return "; ".join(faults) or None


def _costs_agree(ledger: Usage, reported: Usage) -> bool:
    share = ledger.estimated_tokens / max(ledger.output_tokens, 1)
    costlier = max(ledger.cost_usd, reported.cost_usd)
    tolerance = _COST_TOLERANCE * costlier + min(share, 1) * ledger.cost_usd
    return abs(ledger.cost_usd - reported.cost_usd) <= max(tolerance, _LEAST_USD)
