"""Figures as people read them: one scale for a whole row, so that 91.5 % and +4.6 points have the same decimals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

ABSENT = "–"
MINUS = "\u2212"
THIN = "\u202f"  # narrow no-break space between a number and its unit


@dataclass(frozen=True)
class Scale:
    """`factor` brings a value to the unit that is shown."""

    factor: float
    decimals: int
    suffix: str

    def show(self, value: float | None) -> str:
        return ABSENT if value is None else _minus(f"{self._number(value)}{self.suffix}")

    def signed(self, value: float | None, suffix: bool = True) -> str:
        """With its sign; for percentages the suffix is left out, because a difference of percentages is in points."""
        if value is None:
            return ABSENT
        number = self._number(value)
        sign = "+" if number.strip("-0.,") and value > 0 else ""
        return _minus(sign + _unsigned_zero(number) + (self.suffix if suffix and "%" not in self.suffix else ""))

    def interval(self, low: float | None, high: float | None) -> str:
        """`[+1.3, +7.8]`; nothing when either end is unknown."""
        known = low is not None and high is not None
        return f"[{self.signed(low, suffix=False)}, {self.signed(high, suffix=False)}]" if known else ""

    def _number(self, value: float) -> str:
        return f"{value * self.factor:,.{self.decimals}f}"


def scale(unit: str, values: Iterable[float | None]) -> Scale:
    """How to show figures of this unit, from the largest of them."""
    largest = max((abs(v) for v in values if v is not None), default=0.0)
    if unit == "fraction":
        return Scale(100, 1, f"{THIN}%")
    if unit == "seconds":
        factor, name = _prefix(largest, ((1, "s"), (1e3, "ms"), (1e6, "µs")))
        return Scale(factor, _decimals(largest * factor), THIN + name)
    if unit == "bytes":
        factor, name = _prefix(largest, ((1e-9, "GB"), (1e-6, "MB"), (1e-3, "kB"), (1, "B")))
        return Scale(factor, _decimals(largest * factor), THIN + name)
    if unit == "operations":
        factor, name = _prefix(largest, ((1e-9, "G"), (1e-6, "M"), (1, "")))
        return Scale(factor, _decimals(largest * factor), THIN + name)
    if unit == "per second":
        return Scale(1, _decimals(largest), f"{THIN}/s")
    return Scale(1, 3 if largest < 100 else 1, "")


def percent(value: float | None, decimals: int = 1) -> str:
    return Scale(100, decimals, f"{THIN}%").show(value)


def probability(p: float | None) -> str:
    """A p-value: three decimals, never `0.000`."""
    if p is None:
        return ABSENT
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.9995 else "1"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return ABSENT
    if seconds < 60:
        return scale("seconds", [max(seconds, 0.001)]).show(seconds)
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}{THIN}h {minutes}{THIN}min" if hours else f"{minutes}{THIN}min {rest}{THIN}s")


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers inside [low, high], about `about` of them."""
    raw = (high - low) / max(about, 1)
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _prefix(largest: float, steps: Sequence[tuple[float, str]]) -> tuple[float, str]:
    return next(((factor, name) for factor, name in steps if largest * factor >= 1), steps[-1])


def _decimals(shown: float) -> int:
    return 0 if shown >= 100 else 1 if shown >= 10 else 2


def _unsigned_zero(number: str) -> str:
    return number if number.strip("-0.,") else number.lstrip("-")


def _minus(number: str) -> str:
    return number.replace("-", MINUS)
