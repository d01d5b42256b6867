"""Two curves over the threshold: what is answered, and what of it is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from llmcache_fast.cli.output import Exit, stop

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from llmcache_fast.semantic.forecast import LogPoint, PairsPoint, Share


def drawing() -> bool:
    """Whether the library is installed."""
    return find_spec("matplotlib") is not None


def draw(path: Path, points: Sequence[PairsPoint] | Sequence[LogPoint], what: str) -> None:
    """Write a picture; `what` the shares are of. The suffix says in which form."""
    # A figure by itself: no window, no state of the whole process.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    thresholds = [point.threshold for point in points]
    for label, color, shares in (
        (f"answered, of {what}", "tab:blue", [point.hits for point in points]),
        ("wrong, of what is answered", "tab:red", [point.wrong for point in points]),
    ):
        _curve(axes, thresholds, shares, label, color)
    axes.set_xlabel("threshold")
    axes.set_ylabel("share")
    axes.set_ylim(0, 1)
    axes.invert_xaxis()  # strict to loose
    axes.grid(alpha=0.3)
    axes.legend()
    try:
        figure.savefig(path)
    except OSError as problem:
        stop(Exit.USAGE, f"{path}: {problem.strerror}")


def _curve(axes: Axes, thresholds: Sequence[float], shares: Sequence[Share], label: str, color: str) -> None:
    known = [(at, share) for at, share in zip(thresholds, shares, strict=True) if share.of]
    xs = [at for at, _ in known]
    axes.plot(xs, [share.count / share.of for _, share in known], label=label, color=color)
    low, high = [share.low for _, share in known], [share.high for _, share in known]
    axes.fill_between(xs, low, high, color=color, alpha=0.15)
