"""Nothing of a prompt, an answer, a tag or a key is said aloud, whatever goes wrong.

A cache is driven through every kind of failure with strings that stand nowhere else; then all that it said is
searched for them: logs at DEBUG, warnings, its own exceptions with what they were raised from, `stats`,
`explain`, and what the system shows of the process.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from llmcache_fast import LLMCache, LLMCacheError, UnstorableValueError, _codec, _core
from llmcache_fast._entry import CONTENTS, Content, Facet
from llmcache_fast._errors import TierError
from llmcache_fast._secrecy import Secrecy
from llmcache_fast._wire import Wire
from llmcache_fast.testing import Fault, FaultyTier, ManualClock, MemoryTier
from llmcache_fast.tiers.disk import DiskTier
from tests.golden.make_envelope_vectors import checked

PROMPT, ANSWER, TAG = ("canary" + part * 5 for part in ("Pq", "Aw", "Tz"))
KEY = bytes(range(7, 39))
CANARIES = [
    *(
        form
        for word in (PROMPT, ANSWER, TAG)
        for form in (word, word[6:], base64.b64encode(word.encode()).decode())
    ),
    KEY.hex()[:16],
    base64.b64encode(KEY).decode()[:16],
    repr(KEY)[2:20],
]
REQUEST = {"model": "m", "messages": [{"role": "user", "content": PROMPT}]}
REQUESTS = [{**REQUEST, "n": n} for n in range(40)]


class Ears:
    """All that was said."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.raised = 0

    def hear(self, *said: object) -> None:
        self.texts += [form for thing in said for form in (str(thing), repr(thing))]

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Hears one of our own exceptions, if there is one, and all it carries along."""
        try:
            yield
        except LLMCacheError as caught:
            self.raised += 1
            self.texts += traceback.format_exception(caught)
            error: BaseException | None = caught
            while error is not None:
                self.hear(error, error.args, getattr(error, "__notes__", ""), vars(error))
                error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)

    def canaries(self) -> list[str]:
        return sorted({canary for canary in CANARIES for text in self.texts if canary in text})


class Talkative:
    """A value that says what it holds."""

    def __repr__(self) -> str:
        return f"Talkative({ANSWER})"

    __str__ = __repr__


class DriverError(Exception):
    """A driver's error that quotes what it was given."""


async def wrong_calls(cache: LLMCache, ears: Ears) -> None:
    """Mistakes of the caller."""
    key = cache.fingerprint(REQUEST)
    lone, circle = PROMPT + "\ud800", [PROMPT]
    circle.append(circle)  # type: ignore[arg-type]
    requests: list[Any] = [
        {"content": lone},
        {"content": Talkative()},
        {"content": {PROMPT: circle}.values()},
        {1: PROMPT},
        {"content": circle},
        {"content": float("nan"), "x": PROMPT},
        PROMPT,
        [PROMPT],
        {PROMPT, 1.5},
    ]
    for request in requests:
        with ears.errors():
            await cache.get(request)
    values: list[Any] = [
        Talkative(),
        ANSWER + "\ud800",
        {"a": ANSWER + "\ud800"},
        {"a": Talkative()},
        [ANSWER, object()],
        {"a": {ANSWER: 2**70}},
        {1.5: ANSWER, (ANSWER,): Talkative()},
    ]
    for value in values:
        with ears.errors():
            await cache.set(REQUEST, value)
    await cache.set(key, ANSWER, tags=[TAG])
    await cache.set(REQUESTS[0], {"answer": ANSWER})
    kinds: list[Any] = [int, list[int], dict[str, int]]
    for kind in kinds:
        for stored in (REQUEST, REQUESTS[0]):
            assert await cache.get(stored, type=kind) is None
    wrong_tags: list[Any] = [TAG, [TAG, 7], [TAG * 20], [TAG + "\ud800"]]
    for tags in wrong_tags:
        with ears.errors():
            await cache.set(REQUEST, ANSWER, tags=tags)
    for ttl in (-1, float("nan")):
        with ears.errors():
            await cache.set(REQUEST, ANSWER, ttl=ttl)


async def failing_computations(cache: LLMCache, clock: ManualClock, ears: Ears) -> None:
    """Failures of the provider, in the foreground and in the background."""

    async def fails() -> str:
        raise RuntimeError(ANSWER)

    async def unstorable() -> Any:
        return {"a": Talkative(), "b": ANSWER}

    async def answers() -> str:
        return ANSWER

    with pytest.raises(RuntimeError):
        await cache.get_or_compute(REQUESTS[1], fails)
    await cache.get_or_compute(REQUESTS[2], unstorable)
    await cache.get_or_compute(REQUESTS[3], answers, tags=[TAG])
    clock.advance(70)
    assert await cache.get_or_compute(REQUESTS[3], fails, stale_while_revalidate=3600) == ANSWER
    await anyio.wait_all_tasks_blocked()  # the refresh has failed
    await cache.invalidate(tags=[TAG])
    with ears.errors():
        await cache.get_or_compute(REQUESTS[3], fails, only_if_cached=True)

    async def again() -> Any:
        return await cache.get_or_compute(REQUESTS[4], again)

    with ears.errors():
        await cache.get_or_compute(REQUESTS[4], again)


def forged(
    request: dict[str, Any], cache: LLMCache, content: Content, payload: bytes, facts: bytes = b""
) -> bytes:
    """A record that somebody made up who can write to the tier."""
    return _core.encode_envelope(
        kind=0,
        content_type=CONTENTS.index(content),
        epoch=1,
        snap=2**62,
        created=1,
        fresh_until=2**62,
        stale_until=2**62,
        compute_micros=0,
        cost=0,
        fingerprint=cache.fingerprint(request),
        namespace="default",
        facts=facts,
        payload=payload,
    )


FORGED: list[tuple[Content, bytes, bytes]] = [
    ("text", ANSWER.encode() + b"\xff", b""),
    ("json", b'{"a": "' + ANSWER.encode(), b""),
    ("json", b"[" * 100_000, b""),
    ("msgpack", b"\x91" * 100_000, b""),
    ("msgpack", b"\xc1" + ANSWER.encode(), b""),
    ("stream", ANSWER.encode(), b""),
    ("bytes", b"", b"\x91" * 100_000),
    ("bytes", b"", b"\x91\xa9" + ANSWER.encode()[:9]),
]


async def hostile_records(cache: LLMCache, tier: MemoryTier, ears: Ears) -> None:
    """A tier that gives back what nobody wrote."""
    await cache.set(REQUESTS[5], ANSWER, tags=[TAG])
    await cache.flush()
    key = cache.fingerprint(REQUESTS[5])
    good = tier.records[key]
    text = ANSWER.encode()
    # Valid by its stamp, so that the payload is what is refused.
    epoch = good.epoch.to_bytes(8, "little")
    forgeries = [
        forged(request, cache, content, payload, facts)
        for request, (content, payload, facts) in zip(REQUESTS[10:], FORGED, strict=False)
    ]
    for number, record in enumerate(forgeries, start=10):
        body = record[:8] + epoch + record[16:-16]
        _plant(tier, cache, REQUESTS[number], good, checked(body))
    sealed = Wire(Secrecy(KEY)).record
    entry = Wire().entry(good.envelope, "default", key)[0]
    assert entry is not None
    damaged = [
        good.envelope,
        good.envelope[:-40],
        good.envelope + text,
        text * 20,
        sealed(entry).envelope,
        good.envelope[:150] + text + good.envelope[150 + len(text) :],
    ]
    for number, record in enumerate(damaged, start=20):
        _plant(tier, cache, REQUESTS[number], good, record)
    for request in REQUESTS[10:26]:
        # A miss the first time, and when memory was asked before the tier.
        assert await cache.get(request) is None
        assert await cache.get(request) is None


def _plant(tier: MemoryTier, cache: LLMCache, request: Any, like: Any, envelope: bytes) -> None:
    key = cache.fingerprint(request)
    tier.records[key] = like._replace(key=key, envelope=envelope)


async def failing_tiers(ears: Ears, clock: ManualClock) -> None:
    """Tiers whose errors quote what they were given."""
    planned = TierError(f"planned: {ANSWER}", tier="t", operation="o", reason="planned")
    # A tier raises `TierError` alone; what reads and what writes behind bear with others.
    for error, operations in (
        (planned, {"get_many", "put_many", "delete_many"}),
        (DriverError(ANSWER), {"get_many", "put_many"}),
    ):

        def plan(
            name: str, number: int, error: Exception = error, failing: set[str] = operations
        ) -> Fault | None:
            return Fault(error) if name in failing and number < 2 else None

        async with LLMCache(tiers=[FaultyTier(MemoryTier(clock=clock), plan)], clock=clock) as cache:
            await cache.set(REQUEST, ANSWER, tags=[TAG])
            assert await cache.get(REQUESTS[6]) is None
            await cache.delete(REQUESTS[7])
            await cache.invalidate(tags=[TAG])
            await cache.flush()
            ears.hear(cache.stats())


def wrong_keys(ears: Ears) -> None:
    """Keys that are none, or in the wrong place."""
    for keys in (KEY.hex()[:-1], KEY[:-1], KEY + b"!", {KEY.hex(): "a"}, {"a": KEY, "b": KEY}, [KEY]):
        with ears.errors():
            Secrecy(keys)  # type: ignore[arg-type]
    with ears.errors():
        Secrecy(KEY, current=KEY.hex())
    with ears.errors():
        Secrecy(KEY, blinding=KEY)
    for text in (KEY.hex(), base64.b64encode(KEY).decode(), f"{KEY.hex()}=a"):
        with ears.errors():
            Secrecy.from_environment({"LLMCACHE_KEYS": text})
    ears.hear(Secrecy(KEY), Secrecy(KEY).keyring, Wire(Secrecy(KEY)))


def of_the_process() -> Iterator[str]:
    """Its command line, its name and those of its threads."""
    yield Path("/proc/self/cmdline").read_text()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            yield (task / "comm").read_text()


async def drive(ears: Ears, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    clock = ManualClock()
    tier = MemoryTier(clock=clock)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        async with LLMCache(tiers=[tier], ttl=60, stale_while_revalidate=3600, clock=clock) as cache:
            await wrong_calls(cache, ears)
            await failing_computations(cache, clock, ears)
            await hostile_records(cache, tier, ears)
            ears.hear(cache.stats(), cache.explain(REQUEST), cache.explain(REQUESTS[39]), cache)
            ears.hear(msgspec.json.encode(cache.stats()))
        await failing_tiers(ears, clock)
        wrong_keys(ears)
    assert warned, "something had to be warned of"
    assert caplog.records, "something had to be logged"
    assert ears.raised > 30
    ears.hear(*(warning.message for warning in warned))
    for record in caplog.records:
        ears.hear(record.getMessage(), vars(record))
        if record.exc_info:
            ears.texts += traceback.format_exception(*record.exc_info)
    ears.texts += of_the_process()


async def test_nothing_is_said_aloud(caplog: pytest.LogCaptureFixture) -> None:
    ears = Ears()
    await drive(ears, caplog)
    assert ears.canaries() == []


class SharedTier(MemoryTier):
    """Another cache's sight of the same tier."""

    def __init__(self, shared: MemoryTier) -> None:
        super().__init__(clock=shared._clock)
        self.records, self._clocks, self._markers = shared.records, shared._clocks, shared._markers


async def test_a_tier_holds_nothing_that_can_be_read() -> None:
    """What a store sees through a cache with keys, while caches with the same keys share it."""
    clock = ManualClock()
    tier = MemoryTier(clock=clock)
    secrecy = Secrecy(KEY, blinding=bytes(range(150, 182)))
    async with LLMCache(tiers=[tier], secrecy=secrecy, clock=clock) as one:
        true_key = one.fingerprint(REQUEST)
        await one.set(REQUEST, ANSWER * 100, tags=[TAG])
        await one.set(REQUESTS[0], {"answer": ANSWER}, label=f"docs/{TAG}")
        await one.invalidate(tags=["other"])
        await one.flush()
        assert len(tier.records) == 2
        assert tier._markers
        held = b"".join(msgspec.msgpack.encode(record) for record in tier.records.values())
        for canary in CANARIES:
            assert canary.encode() not in held
        assert true_key not in held
        assert _core.Engine._namespace_id("default") not in (*tier._clocks, *tier._markers)
        async with LLMCache(tiers=[SharedTier(tier)], secrecy=secrecy, clock=clock) as other:
            assert await other.get(REQUEST) == ANSWER * 100
            assert await other.get(REQUESTS[0]) == {"answer": ANSWER}
            clock.advance(1)
            await one.invalidate(tags=[TAG])
        # A third, with nothing in memory, hears of the marker by its blinded number and maps it back.
        async with LLMCache(tiers=[SharedTier(tier)], secrecy=secrecy, clock=clock) as third:
            assert await third.get(REQUEST) is None
            assert await third.get(REQUESTS[0]) == {"answer": ANSWER}


FACET = Facet(bytes(range(32)), bytes(range(16)), f"{PROMPT}?", (PROMPT * 8).encode())
"""A question, and a vector that can be recognised."""


def contents(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


async def test_a_facet_is_said_nowhere_and_can_be_read_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Question, vector and partition of a sealed entry: in files, in memory below, and aloud."""
    caplog.set_level(logging.DEBUG)
    ears, clock = Ears(), ManualClock()
    failing = FaultyTier(MemoryTier(clock=clock), lambda name, number: Fault(DriverError(name)))
    disk, memory = DiskTier(tmp_path / "disk", clock=clock), MemoryTier(clock=clock)
    options: dict[str, Any] = {"compress": False, "journal": tmp_path / "journal", "durability": "journal"}
    secrecy = Secrecy(KEY, blinding=bytes(range(150, 182)))
    wire = Wire(secrecy)
    async with LLMCache(tiers=[memory, disk, failing], secrecy=secrecy, clock=clock, **options) as cache:
        await cache.set(REQUEST, "an answer", tags=["t"])
        entry = cache._lookup.peek(cache.fingerprint(REQUEST), "default")
        assert entry is not None
        entry = entry._replace(facts=msgspec.structs.replace(entry.facts, semantic=FACET))
        record = wire.record(entry)
        cache._lookup.put(entry)
        with anyio.move_on_after(1):
            await cache.flush()
        assert (await disk.members(wire.tier_key(FACET.partition)))[0] == [wire.tier_key(entry.key)]
        ears.hear(cache.stats(), cache.explain(REQUEST), FACET, entry.facts)
        ears.hear(record._replace(envelope=b"", key=b""))
        held = contents(tmp_path)
        held += [msgspec.msgpack.encode(each) for each in memory.records.values()]
        assert len(held) > 3
    held += contents(tmp_path)
    for hidden in (PROMPT.encode(), FACET.partition, FACET.partition[4:20], entry.key):
        assert not [each for each in held if hidden in each]
    for message in caplog.records:
        ears.hear(message.getMessage(), vars(message))
    assert ears.canaries() == []


async def test_a_message_that_quotes_a_value_is_found(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted bug: an error that quotes what could not be stored."""

    def quoting(value: Any, kind: Any = None) -> Any:
        raise UnstorableValueError(f"{value!r} cannot be stored")

    monkeypatch.setattr("llmcache_fast._storing.encode", quoting)
    ears = Ears()
    async with LLMCache() as cache:
        with ears.errors():
            await cache.set(REQUEST, {"answer": ANSWER})
    assert ears.raised == 1
    assert _codec.encode is not quoting
    assert ANSWER in ears.canaries()
