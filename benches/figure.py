"""One row of the table of figures."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from benches.rounds import Spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benches.rounds import Times

OURS = "llmcache_fast"


@dataclass
class Figure:
    """A kind of work, what it costs each contender relative to `base`, and what we set out to reach."""

    work: str
    base: str
    """The contender whose time is 1.0."""
    ratios: dict[str, Spread]
    """By contender; ours is called `OURS`, variants `OURS (…)`."""
    target: float | None = None
    """The ratio to reach, at most; None when the row only informs."""
    absolute: dict[str, str] = field(default_factory=dict)
    """What it took, in units a person reads."""
    ours: str = OURS
    """The contender the target is about."""
    notes: list[str] = field(default_factory=list)
    unit: str = "x"
    """What the ratios are in, when they are none."""

    @property
    def met(self) -> bool | None:
        return None if self.target is None else self.ratios[self.ours].median <= self.target

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "ratios": {k: v._asdict() for k, v in self.ratios.items()}, "met": self.met}

    def lines(self) -> list[str]:
        """The row as a person reads it: cheapest first, ours marked."""
        unit = "x" if self.unit == "x" else f" {self.unit}"
        head = self.work
        if self.target is not None:
            verdict = "met" if self.met else f"MISSED by {self.excess()}"
            head += f"\n  target: <= {self.target:.3g}{unit} {self.base if self.unit == 'x' else ''}".rstrip()
            head += f" -> {verdict}"
        rows = [head]
        width = max(map(len, self.ratios))
        for name, spread in sorted(self.ratios.items(), key=lambda item: item[1].median):
            mark = ">" if name == self.ours else " "
            sign = "x" if self.unit == "x" else " "
            ratio = f"{spread.median:9.2f}{sign} [{spread.low:.2f} .. {spread.high:.2f}]"
            rows.append(f"  {mark} {name:<{width}} {ratio:<28} {self.absolute.get(name, '')}".rstrip())
        rows += [f"    {note}" for note in self.notes]
        return rows

    def excess(self) -> str:
        """How far from the target."""
        measured, target = self.ratios[self.ours].median, self.target or 0.0
        return f"{measured - target:.0f} {self.unit}" if self.unit != "x" else f"{measured / target:.2f}x"


def duration(ns: float) -> str:
    """Nanoseconds for people."""
    for unit, factor in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= factor:
            return f"{ns / factor:.3g} {unit}"
    return f"{ns:.3g} ns"


def from_times(
    work: str,
    times: Times,
    base: str,
    *,
    target: float | None = None,
    ours: str = OURS,
    notes: Sequence[str] = (),
) -> Figure:
    return Figure(
        work,
        base,
        {name: times.ratio(name, base) for name in times.rounds},
        target,
        {name: duration(times.ns(name).median) for name in times.rounds},
        ours,
        list(notes),
    )
