"""`llmcache-fast demo`: the real OpenAI SDK against a local upstream, through the cache.

The workload is a service's: few questions asked often and many asked once (a Zipf distribution), a third of
the calls streamed, some with tools, in bursts of callers that ask the same at the same time. After it, one
caller repeats questions one after another: what a hit takes when nothing else goes on.
"""

from __future__ import annotations

import bisect
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

import anyio
import msgspec

from llmcache_fast import LLMCache
from llmcache_fast._usage import PriceTable, Usage
from llmcache_fast.insight.cost import Bill
from llmcache_fast.integrations import wrap

MODEL = "gpt-4o-mini"
ALONE = 50
"""Calls of the caller that is alone."""
LOOK_UPS = 1000

_TOPICS = "refunds shipping invoices passwords exports roles webhooks quotas regions backups".split()  # noqa: SIM905
_SYSTEM = "You are the support assistant of a small company. Answer in one paragraph, in plain words. " * 12


class Call(msgspec.Struct, frozen=True):
    """One call of the workload."""

    question: int
    stream: bool
    tools: bool

    def arguments(self) -> dict[str, Any]:
        """What is passed to the SDK."""
        topic = _TOPICS[self.question % len(_TOPICS)]
        text = f"A customer asks about {topic} (case {self.question}). What do we tell them?"
        value: dict[str, Any] = {
            "model": MODEL,
            "messages": [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": text}],
        }
        if self.tools:
            schema = {
                "type": "object",
                "properties": {"topic": {"type": "string"}, "case": {"type": "integer"}},
            }
            value["tools"] = [{"type": "function", "function": {"name": "look_up", "parameters": schema}}]
        if self.stream:
            value |= {"stream": True, "stream_options": {"include_usage": True}}
        return value


class Timing(msgspec.Struct, frozen=True):
    """Latencies of the calls of one status, in seconds."""

    calls: int
    p50: float
    p95: float
    p99: float


class Report(msgspec.Struct, frozen=True):
    """What the demo found."""

    calls: int
    upstream_calls: int
    """Counted by the upstream itself."""
    avoided_calls: int
    seconds: float
    timings: dict[str, Timing]
    """Under the workload, by status: `hit`, `joined`, `miss`; `hit, alone` of the caller after it; and
    `look-up`, the cache's own share of a hit: no SDK, no HTTP client."""
    spent: Bill
    saved: Bill
    prices_dated: str


def plain(report: Report) -> dict[str, Any]:
    """The report with token counts by name, as JSON should have them; a stored `Usage` is a bare array."""
    shown = msgspec.structs.asdict(report)
    for name in ("spent", "saved"):
        bill = msgspec.structs.asdict(shown[name])
        shown[name] = {**bill, "usage": msgspec.structs.asdict(bill["usage"])}
    return shown


class Progress(Protocol):
    """Told after each call."""

    def __call__(self) -> None: ...


def workload(calls: int, *, seed: int = 0) -> list[list[Call]]:
    """Bursts of calls; the calls of a burst are made at the same time."""
    rng = random.Random(seed)  # noqa: S311 - reproducible on purpose
    questions = max(4, calls // 6)
    weights = list(itertools.accumulate(1 / (rank + 1) for rank in range(questions)))
    bursts: list[list[Call]] = []
    made = 0
    while made < calls:
        question = bisect.bisect_left(weights, rng.random() * weights[-1])
        # Which kind of call a question is, is a property of the question: a service asks it from one place.
        kind = random.Random(question).random()  # noqa: S311 - as above
        call = Call(question, stream=kind < 0.35, tools=kind > 0.85)
        repeats = min(rng.choice((1, 1, 1, 1, 1, 2, 4, 8)), calls - made)
        bursts.append([call] * repeats)
        made += repeats
    return bursts


async def run(
    cache: LLMCache,
    url: str,
    upstream_calls: Callable[[], Awaitable[int]],
    *,
    calls: int,
    concurrency: int,
    seed: int,
    progress: Progress,
) -> Report:
    """Make the calls and measure them; `upstream_calls` asks the upstream for its own count."""
    from openai import AsyncOpenAI

    prices = PriceTable.shipped()
    spent, saved = Bill(), Bill()
    latencies: dict[str, list[float]] = {}
    limiter = anyio.CapacityLimiter(concurrency)
    client = wrap(AsyncOpenAI(base_url=f"{url}/v1", api_key="demo", max_retries=0), cache)

    async def one(call: Call) -> None:
        began = time.perf_counter()
        reply = await client.chat.completions.with_raw_response.create(**call.arguments())
        parsed = reply.parse()
        usage: Any = None
        if call.stream:
            async for chunk in parsed:
                usage = chunk.usage or usage
        else:
            usage = parsed.usage
        took = time.perf_counter() - began
        status = reply.headers.get("x-llmcache", "bypass")
        latencies.setdefault(status, []).append(took)
        tokens = Usage(usage.prompt_tokens, usage.completion_tokens) if usage is not None else None
        (spent if status in ("miss", "bypass") else saved).add(prices, MODEL, tokens)

    async def burst(group: list[Call]) -> None:
        async with limiter, anyio.create_task_group() as tasks:
            for call in group:
                tasks.start_soon(counted_one, call)

    async def counted_one(call: Call) -> None:
        await one(call)
        progress()

    before = await upstream_calls()
    began = time.perf_counter()
    groups = workload(calls, seed=seed)
    async with client:
        async with anyio.create_task_group() as tasks:
            for group in groups:
                tasks.start_soon(burst, group)
        seconds = time.perf_counter() - began
        made = await upstream_calls() - before
        timings = {status: _timing(found) for status, found in sorted(latencies.items())}
        latencies.clear()
        # Not part of the sums: these calls are for the clock alone.
        counted, spent, saved = (spent, saved), Bill(), Bill()
        for group in itertools.islice(itertools.cycle(groups), ALONE):
            await one(group[0])
        spent, saved = counted
    if found := latencies.get("hit"):
        timings["hit, alone"] = _timing(found)
    timings["look-up"] = await _look_up(cache, groups[0][0])
    return Report(calls, made, calls - made, seconds, timings, spent, saved, prices.dated)


async def _look_up(cache: LLMCache, call: Call) -> Timing:
    request = call.arguments()

    async def compute() -> str:
        return "an answer"

    await cache.get_or_compute(request, compute)
    found = []
    for _ in range(LOOK_UPS):
        began = time.perf_counter()
        await cache.get_or_compute(request, compute)
        found.append(time.perf_counter() - began)
    return _timing(found)


def _timing(latencies: Iterable[float]) -> Timing:
    ordered = sorted(latencies)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return Timing(len(ordered), at(0.50), at(0.95), at(0.99))
