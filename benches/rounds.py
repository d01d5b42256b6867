"""Measuring side by side: rounds in which every contender has its turn, in an order drawn anew each time.

Whatever slows the machine for a while then falls on all. A ratio is taken within each round and the median
of these is reported with its quartiles: the spread says how far to trust the median. Times are processor
time of the process (all its threads), so that other programs on the machine disturb caches and clock rates
but are not counted.
"""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from time import process_time_ns
from typing import Any, NamedTuple


class Contender(NamedTuple):
    """One way of doing the work.

    `run(batch)` does it for a whole batch and is timed; `prepare(size)` makes the batch and is not.
    """

    prepare: Callable[[int], Any]
    run: Callable[[Any], Any]


class AsyncContender(NamedTuple):
    """The same with a coroutine function as `run`."""

    prepare: Callable[[int], Any]
    run: Callable[[Any], Awaitable[Any]]


class Spread(NamedTuple):
    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(low, median, high)


@dataclass
class Times:
    """Nanoseconds per operation of each contender, by round."""

    rounds: dict[str, list[float]] = field(default_factory=dict)

    def ns(self, name: str) -> Spread:
        return Spread.of(self.rounds[name])

    def ratio(self, name: str, base: str) -> Spread:
        return Spread.of(
            [mine / theirs for mine, theirs in zip(self.rounds[name], self.rounds[base], strict=True)]
        )


def _order(contenders: Mapping[str, Any], rng: random.Random) -> list[str]:
    names = list(contenders)
    rng.shuffle(names)
    return names


def interleave(
    contenders: Mapping[str, Contender], *, size: int, rounds: int, sizes: Mapping[str, int] | None = None
) -> Times:
    """Time `rounds` batches of `size` operations of each contender (`sizes` overrides it for slow ones)."""
    rng = random.Random(1)
    gc.collect()
    gc.freeze()  # what the peers' imports left behind is not walked before every batch
    times = Times({name: [] for name in contenders})
    for number in range(rounds + 1):
        for name in _order(contenders, rng):
            contender = contenders[name]
            count = (sizes or {}).get(name, size)
            gc.collect()
            batch = contender.prepare(count)
            gc.disable()
            start = process_time_ns()
            contender.run(batch)
            elapsed = process_time_ns() - start
            gc.enable()
            if number:  # the first round warms up
                times.rounds[name].append(elapsed / count)
    return times


async def interleave_async(
    contenders: Mapping[str, AsyncContender],
    *,
    size: int,
    rounds: int,
    sizes: Mapping[str, int] | None = None,
) -> Times:
    """The same inside a running event loop."""
    rng = random.Random(1)
    gc.collect()
    gc.freeze()  # what the peers' imports left behind is not walked before every batch
    times = Times({name: [] for name in contenders})
    for number in range(rounds + 1):
        for name in _order(contenders, rng):
            contender = contenders[name]
            count = (sizes or {}).get(name, size)
            gc.collect()
            batch = contender.prepare(count)
            gc.disable()
            start = process_time_ns()
            await contender.run(batch)
            elapsed = process_time_ns() - start
            gc.enable()
            if number:
                times.rounds[name].append(elapsed / count)
    return times


def pedantic(benchmark: Any, contender: Contender, *, size: int) -> None:
    """Run a contender under pytest-benchmark: fresh batches, made outside the timing."""
    benchmark.extra_info["operations per round"] = size
    benchmark.pedantic(
        contender.run, setup=lambda: ((contender.prepare(size),), {}), rounds=20, warmup_rounds=1
    )


def pedantic_async(
    benchmark: Any,
    entrants: Callable[[], AbstractAsyncContextManager[dict[str, AsyncContender]]],
    name: str,
    *,
    size: int,
) -> None:
    """The same for a contender that lives in an event loop."""
    with asyncio.Runner() as runner:
        manager = entrants()
        contender = runner.run(manager.__aenter__())[name]
        benchmark.extra_info["operations per round"] = size
        benchmark.pedantic(
            lambda batch: runner.run(contender.run(batch)),
            setup=lambda: ((contender.prepare(size),), {}),
            rounds=20,
            warmup_rounds=1,
        )
        runner.run(manager.__aexit__(None, None, None))
