"""What a call costs: the dated table in the package, overruled by mas.toml."""

import math
import re
import tomllib
from collections.abc import Mapping
from datetime import date
from importlib import resources

from msgspec import Struct, convert

from mas.errors import ConfigError

_PER = 1_000_000

# How Anthropic multiplies the price of input where it names no other.
_CACHE_READ = 0.1
_CACHE_WRITE_5M = 1.25
_1H_TO_5M = 1.6

_OVERRIDES = ("input", "output", "cache_read", "cache_write")
_ALLOWED = "a number of US dollars a million tokens, 0 or more"

_VARIANT = re.compile(r"(-\d{8}|-latest)?([@\[].*)?")
"""What may follow a key of the table: a date, ``-latest``, ``@…``, ``[1m]``."""


class TokenCounts(Struct, frozen=True, kw_only=True):
    """What one answer used, by the kinds that have prices of their own."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    web_searches: int = 0
    is_us_only: bool = False
    """Whether inference was kept to the US, which costs more."""

    @property
    def cache_write(self) -> int:
        return self.cache_write_5m + self.cache_write_1h

    @property
    def prompt(self) -> int:
        """All that was read: input, cache reads and cache writes."""
        return self.input + self.cache_read + self.cache_write

    @property
    def total(self) -> int:
        """Tokens of all kinds."""
        return self.prompt + self.output


class Rates(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """US dollars per million tokens."""

    input: float
    output: float
    cache_read: float
    cache_write_5m: float
    cache_write_1h: float

    def of(self, tokens: TokenCounts) -> float:
        """The tokens' cost in US dollars."""
        return (
            tokens.input * self.input
            + tokens.output * self.output
            + tokens.cache_read * self.cache_read
            + tokens.cache_write_5m * self.cache_write_5m
            + tokens.cache_write_1h * self.cache_write_1h
        ) / _PER


class LongPromptRates(Rates, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a whole request costs whose prompt has more than ``above_tokens``."""

    above_tokens: int


class Price(Struct, frozen=True, kw_only=True):
    """What a model costs."""

    rates: Rates
    long_prompt: LongPromptRates | None = None
    web_search_per_1000: float = 0.0
    """US dollars."""
    us_inference_factor: float = 1.0
    """By what tokens cost more where inference was kept to the US."""

    def cost(self, tokens: TokenCounts) -> float:
        """What one request's tokens and web searches cost, in US dollars."""
        rates = self.rates
        if self.long_prompt and tokens.prompt > self.long_prompt.above_tokens:
            rates = self.long_prompt
        factor = self.us_inference_factor if tokens.is_us_only else 1.0
        searches = tokens.web_searches * self.web_search_per_1000 / 1000
        return rates.of(tokens) * factor + searches


class _Table(Struct, frozen=True, forbid_unknown_fields=True):
    """prices.toml."""

    date: date
    source: str
    web_search_per_1000: float
    us_inference_factor: float
    models: dict[str, Rates]
    long_prompts: dict[str, LongPromptRates]


class Prices:
    """The prices of the models that are known.

    A model's id is a key of the table, as it is or followed by a date (``-20250929``)
    or ``-latest``, and then by what begins with ``@`` or ``[``. The longest key counts.
    """

    def __init__(
        self,
        prices: Mapping[str, Price],
        *,
        date: date,
        source: str,
        otherwise: Price | None = None,
    ) -> None:
        self._prices = dict(prices)
        self._otherwise = otherwise
        self.date = date
        """When the table in the package was made."""
        self.source = source
        """Where its figures are from."""

    @classmethod
    def load(
        cls, overrides: Mapping[str, Mapping[str, float]] | None = None
    ) -> "Prices":
        """The package's table, where ``overrides`` does not say otherwise.

        These are mas.toml's sections ``[prices."MODEL"]``, by model. ConfigError where
        one holds what is no price.
        """
        text = (resources.files("mas.gateway.spending") / "prices.toml").read_text(
            "utf-8"
        )
        table = convert(tomllib.loads(text), _Table)
        prices = {
            model: Price(
                rates=rates,
                long_prompt=table.long_prompts.get(model),
                web_search_per_1000=table.web_search_per_1000,
                us_inference_factor=table.us_inference_factor,
            )
            for model, rates in table.models.items()
        }
        for model, section in (overrides or {}).items():
            # The user's figure is what is paid: nothing of ours is laid upon it.
            prices[model] = Price(
                rates=_overriding(model, section),
                web_search_per_1000=table.web_search_per_1000,
            )
        return cls(prices, date=table.date, source=table.source)

    @classmethod
    def free(cls) -> "Prices":
        """Every model costs nothing: for answers that nobody pays for."""
        rates = Rates(
            input=0, output=0, cache_read=0, cache_write_5m=0, cache_write_1h=0
        )
        return cls({}, date=date.min, source="", otherwise=Price(rates=rates))

    def of(self, model: str) -> Price | None:
        """What the model costs; None where that is not known."""
        exact = self._prices.get(model)
        if exact is not None:
            return exact
        keys = [
            key
            for key in self._prices
            if model.startswith(key) and _VARIANT.fullmatch(model, len(key))
        ]
        return self._prices[max(keys, key=len)] if keys else self._otherwise


def _overriding(model: str, section: Mapping[str, float]) -> Rates:
    """The rates that a section of mas.toml stands for."""
    where = f'[prices."{model}"]'
    for key, value in section.items():
        if key not in _OVERRIDES:
            raise ConfigError(
                f"{where} has an unknown key {key}",
                hint=f"allowed there: {', '.join(_OVERRIDES)}",
            )
        if not _is_price(value):
            raise ConfigError(
                f"{where} {key} is {value!r}, which is no price", hint=_ALLOWED
            )
    for key in ("input", "output"):
        if key not in section:
            raise ConfigError(f"{where} {key} is missing", hint=_ALLOWED)
    per_input = section["input"]
    write_5m = section.get("cache_write", per_input * _CACHE_WRITE_5M)
    return Rates(
        input=per_input,
        output=section["output"],
        cache_read=section.get("cache_read", per_input * _CACHE_READ),
        cache_write_5m=write_5m,
        cache_write_1h=write_5m * _1H_TO_5M,
    )


def _is_price(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and value >= 0
