"""What model calls took, as people read it: in a table's cell, or in a sentence.

``~`` stands before what is partly an estimate, ``?`` for what is not known.
"""

from mas.cli.text import cost, tokens
from mas.model import Usage


def tokens_cell(usage: Usage) -> str:
    """18.4k, ~18.4k; nothing for none."""
    return _about(usage, tokens(usage.tokens))


def cost_cell(usage: Usage, digits: int = 2) -> str:
    """$0.11, ~$0.11, $0.11+? where some tokens have no known price, ? where none has.

    Nothing for nothing.
    """
    known = _dollars(usage.cost_usd, digits) if usage.cost_usd > 0 else ""
    return _amount(usage, known, plus="+?")


def token_words(usage: Usage, budget: int | None = None) -> str:
    """34.3k tokens, 34.3k of 100k tokens; nothing for none without a budget."""
    if budget is None:
        return f"{tokens_cell(usage)} tokens" if usage.tokens else ""
    used = tokens_cell(usage) or "0"
    return f"{used} of {_round(budget)} tokens"


def cost_words(usage: Usage, budget_usd: float | None = None) -> str:
    """$0.41, $0.41 of $0.50, $0.41 + ?, cost not known.

    Nothing for nothing without a budget.
    """
    if budget_usd is None:
        words = _amount(usage, cost(usage.cost_usd), plus=" + ?")
        return "cost not known" if words == "?" else words
    digits = _digits(budget_usd)
    used = _dollars(usage.cost_usd, digits)
    return f"{_amount(usage, used, plus=' + ?')} of ${budget_usd:.{digits}f}"


def cache_share(usage: Usage) -> float | None:
    """Of all that was sent, what the prompt cache held: 0 to 1; None before any."""
    sent = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    return usage.cache_read_tokens / sent if sent else None


def cache_words(share: float | None) -> str:
    """92 % of the input read from the cache; nothing where nothing was."""
    if not share:
        return ""
    # Rounded down: 100 % would say that nothing was paid in full.
    percent = f"{int(share * 100)} %" if share >= 0.01 else "less than 1 %"
    return f"{percent} of the input read from the cache"


def _amount(usage: Usage, known: str, plus: str) -> str:
    """``known``, marked where it is not all or not exact."""
    if usage.unpriced_tokens and usage.cost_usd <= 0:
        return "?"
    return _about(usage, known) + (plus if usage.unpriced_tokens else "")


def _about(usage: Usage, number: str) -> str:
    is_bound = not number or number.startswith("<")
    return f"~{number}" if usage.estimated_tokens and not is_bound else number


def _round(number: int) -> str:
    """100k where the exact form is 100.0k."""
    return tokens(number).replace(".0k", "k").replace(".0M", "M") or "0"


def _digits(budget_usd: float) -> int:
    """Cents, or as much finer as a small budget is."""
    cents = round(budget_usd * 100, 6)
    return 2 if budget_usd >= 1 or cents == int(cents) else 4


def _dollars(amount: float, digits: int) -> str:
    least: float = 10.0**-digits
    if 0 < amount < least / 2:
        return f"<${least:.{digits}f}"
    return f"${amount:.{digits}f}"
