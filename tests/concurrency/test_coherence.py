"""What other processes invalidate: caches that share an authority, each as a process would (I1, I2).

They share the double, whose messages come in the same step. `tests/faults` does it to real servers.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio
import pytest

from llmcache_fast import Computed, LLMCache
from llmcache_fast._errors import CacheClosedError, TierError
from llmcache_fast._secrecy import Secrecy
from llmcache_fast.testing import ManualClock, MemoryTier
from llmcache_fast.tiers.base import Asked, Changes, Message
from llmcache_fast.tiers.breaker import BreakerOptions
from llmcache_fast.tiers.guarded import GuardedTier, GuardOptions

REQUEST = {"q": "what?"}
LEASE = 0.4
PAST_LEASE = LEASE + 0.001
PATIENT = BreakerOptions(window=10**6, least=10**6)


class Line(MemoryTier):
    """One process's line to a shared store: `cut` ends calls, `mute` loses messages, `deaf` the feed.
    `answering` is called while the answer to a question about markers is on its way."""

    def __init__(self, shared: MemoryTier) -> None:
        super().__init__()
        self.shared = shared
        self.cut = self.mute = False
        self.asked = 0
        self.answering: Callable[[], None] | None = None

    def __getattribute__(self, name: str) -> Any:
        calls = (
            "get_many",
            "put_many",
            "delete_many",
            "raise_markers",
            "get_or_lease_many",
            "lease_many",
            "tell",
        )
        if name not in calls:
            return super().__getattribute__(name)
        return self._refuse if self.cut else getattr(self.shared, name)

    async def _refuse(self, *_: Any, **__: Any) -> Any:
        raise TierError("planned", tier="line", operation="", reason="planned")

    async def changes(self, asked: Sequence[Asked]) -> list[Changes]:
        self.asked += 1
        if self.cut:
            await self._refuse()
        answers = await self.shared.changes(asked)
        if self.answering is not None:
            self.answering()
        return answers

    async def follow(self, heard: Callable[[Message | None], None]) -> None:
        await self.shared.follow(lambda message: None if self.mute and message else heard(message))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def shared(clock: ManualClock) -> MemoryTier:
    tier = MemoryTier(clock=clock)
    await tier.open()
    return tier


def process(tier: MemoryTier, clock: ManualClock, **options: Any) -> tuple[LLMCache, Line]:
    line = Line(tier)
    guarded = GuardedTier(line, GuardOptions(breaker=PATIENT))
    return LLMCache(tiers=[guarded], clock=clock, coherence_lease=LEASE, **options), line


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    with anyio.fail_after(20):
        while not await condition():  # noqa: ASYNC110 - on a state, not for a time
            await anyio.sleep(0.005)


def connected(cache: LLMCache) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        coherence = cache.stats().coherence
        return coherence is not None and coherence.connected

    return look


async def answer(text: str = "new") -> str:
    return text


NAMED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"tags": ["doc:7"]}, {"tags": ["doc:7"]}),
    ({"label": "content/blog/ai"}, {"label": "content/blog/*"}),
    ({"label": "content/blog/2024-07"}, {"pattern": "content/*/2024-*"}),
    ({}, {"request": REQUEST}),
    ({}, {"namespace": "default"}),
]


@pytest.mark.parametrize(("stored", "named"), NAMED)
async def test_memory_of_another_process_forgets_at_once(
    shared: MemoryTier, clock: ManualClock, stored: dict[str, Any], named: dict[str, Any]
) -> None:
    (one, _), (other, line) = process(shared, clock), process(shared, clock)
    async with one, other:
        await until(connected(other))
        await one.set(REQUEST, "old", **stored)
        await one.flush()
        assert await other.get(REQUEST) == "old"
        asked = line.asked
        await one.invalidate(**named)
        if "pattern" not in named:  # a message does not tell rules
            assert (await other.get(REQUEST), line.asked) == (None, asked)

        async def gone() -> bool:
            return await other.get(REQUEST) is None

        await until(gone)
        await other.set(REQUEST, "new", **stored)
        assert await other.get(REQUEST) == "new"


async def test_without_messages_it_is_heard_of_by_asking(shared: MemoryTier, clock: ManualClock) -> None:
    (one, _), (other, line) = process(shared, clock), process(shared, clock)
    async with one, other:
        line.mute = True
        await one.set(REQUEST, "old", tags=["t"])
        await one.flush()
        assert await other.get(REQUEST) == "old"
        await one.invalidate(tags=["t"])

        async def gone() -> bool:
            return other.get_nowait(REQUEST) is None

        await until(gone)
        assert other.stats().coherence.messages == 0  # type: ignore[union-attr]


async def test_a_lost_message_is_noticed_at_the_next(shared: MemoryTier, clock: ManualClock) -> None:
    one, _ = process(shared, clock)
    line = Line(shared)
    other = LLMCache(tiers=[line], clock=clock, coherence_lease=3600)
    async with one, other:
        await until(connected(other))
        for name in ("a", "b"):
            await one.set({"q": name}, name, tags=[name])
        await one.flush()
        assert await other.get({"q": "a"}) == "a"
        line.mute = True
        await one.invalidate(tags=["a"])
        line.mute = False
        assert other.get_nowait({"q": "a"}) == "a"
        await one.invalidate(tags=["b"])

        async def gone() -> bool:
            return other.get_nowait({"q": "a"}) is None

        await until(gone)
        coherence = other.stats().coherence
        assert coherence is not None
        assert (coherence.messages, coherence.gaps) == (1, 1)


async def test_messages_may_come_over_another_tier_than_the_authority(clock: ManualClock) -> None:
    bus, root = MemoryTier(clock=clock), MemoryTier(clock=clock)
    for each in (bus, root):
        await each.open()

    class Quiet(Line):
        async def follow(self, heard: Callable[[Message | None], None]) -> None:
            raise AssertionError("the first tier with `tell` is the bus")

    one = LLMCache(tiers=[Line(bus), Quiet(root)], clock=clock, coherence_lease=3600)
    other = LLMCache(tiers=[Line(bus), Quiet(root)], clock=clock, coherence_lease=3600)
    async with one, other:
        await until(connected(other))
        await one.set(REQUEST, "old", tags=["t"])
        await one.flush()
        assert await other.get(REQUEST) == "old"
        await one.invalidate(tags=["t"])
        assert other.get_nowait(REQUEST) is None


async def test_past_the_lease_a_hit_is_unverified_until_the_authority_is_heard(
    shared: MemoryTier, clock: ManualClock
) -> None:
    cache, line = process(shared, clock)
    async with cache:
        await cache.set(REQUEST, "old")
        assert not (await cache.resolve(REQUEST, answer)).unverified
        line.cut = True

        async def unverified() -> bool:
            return (await cache.resolve(REQUEST, answer)).unverified

        assert not await unverified()
        clock.advance(PAST_LEASE)
        assert await unverified()
        fresh = await cache.resolve({"q": "another"}, answer)
        assert (fresh.status, fresh.unverified) == ("miss", False)
        line.cut = False

        async def verified() -> bool:
            return not await unverified()

        await until(verified)


async def test_a_strict_cache_serves_nothing_past_the_lease(shared: MemoryTier, clock: ManualClock) -> None:
    cache, line = process(shared, clock, strict=True)
    async with cache:
        await cache.set(REQUEST, "old")
        assert await cache.get(REQUEST) == "old"
        line.cut = True
        clock.advance(PAST_LEASE)
        assert await cache.get(REQUEST) is None
        assert cache.get_nowait(REQUEST) is None
        assert await cache.get_or_compute(REQUEST, answer) == "new"
        assert (await cache.resolve(REQUEST, answer)).value == "new"
        with pytest.raises(CacheClosedError):
            await cache.invalidate(tags=["t"])
        line.cut = False

        async def served() -> bool:
            return await cache.get(REQUEST) is not None

        await until(served)


async def test_a_lease_ends_in_a_machine_that_is_suspended_though_its_event_loop_stands_still(
    shared: MemoryTier, clock: ManualClock
) -> None:
    """The cache's clock goes on; an answer that was on its way says what was so when it was asked for."""
    cache, line = process(shared, clock, strict=True)
    async with cache:
        await cache.set(REQUEST, "old", ttl=None)
        assert cache.get_nowait(REQUEST) == "old"

        def suspend() -> None:
            clock.advance(3600)
            line.cut = True

        line.answering = suspend

        async def woke() -> bool:
            return line.cut

        await until(woke)
        await cache.get({"q": "another"})
        assert cache.get_nowait(REQUEST) is None
        assert await cache.get(REQUEST) is None
        line.answering, line.cut = None, False

        async def served() -> bool:
            return cache.get_nowait(REQUEST) is not None

        await until(served)


async def test_a_strict_cache_falls_back_on_nothing_past_the_lease(
    shared: MemoryTier, clock: ManualClock
) -> None:
    """What was found before a long computation is not vouched for at its end."""
    (other, _), (cache, line) = process(shared, clock), process(shared, clock, strict=True)
    refused = list[str]()
    async with other, cache:
        await other.set(REQUEST, "old", tags=["t"], ttl=1, stale_if_error=100)
        await other.flush()
        clock.advance(2)

        async def failing() -> str:
            line.cut = line.mute = True
            await other.invalidate(tags=["t"])
            clock.advance(PAST_LEASE)
            raise ValueError("the provider is away")

        try:
            refused.append(await cache.get_or_compute(REQUEST, failing, stale_if_error=100))
        except ValueError as error:
            refused.append(str(error))
    assert refused == ["the provider is away"]


async def test_a_computation_is_superseded_by_another_process(shared: MemoryTier, clock: ManualClock) -> None:
    (one, _), (other, _) = process(shared, clock), process(shared, clock, lease_wait=0)
    started, go, answers = anyio.Event(), anyio.Event(), list[str]()

    async def slow() -> str:
        started.set()
        await go.wait()
        return "of before"

    async def ask(compute: Callable[[], Awaitable[str]]) -> None:
        answers.append(await other.get_or_compute(REQUEST, compute, tags=["t"]))

    async with one, other, anyio.create_task_group() as tasks:
        await until(connected(other))
        tasks.start_soon(ask, slow)
        await started.wait()
        await one.invalidate(tags=["t"])
        await ask(answer)
        go.set()
    assert answers == ["new", "of before"]


async def test_one_that_began_after_the_invalidation_is_kept_though_its_message_comes_late(
    shared: MemoryTier, clock: ManualClock
) -> None:
    cache, line = process(shared, clock)
    told, go, answers = list[Message](), anyio.Event(), list[str]()

    async def slow() -> Computed[str]:
        await go.wait()
        return Computed("kept", tags=["t"])

    async def ask() -> None:
        answers.append(await cache.get_or_compute(REQUEST, slow, tags=["t"]))

    async with cache, anyio.create_task_group() as tasks:
        await until(connected(cache))
        line.mute = True
        shared._followers.add(lambda message: told.append(message) if message else None)
        await cache.invalidate(tags=["t"])
        tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        for message in told:
            cache._lookup.markers.hear(message)
        go.set()
        await until(lambda: _is(cache, "kept"))
    assert (len(told), answers) == (1, ["kept"])


async def _is(cache: LLMCache, value: str | None) -> bool:
    return bool(await cache.get(REQUEST) == value)


async def test_rules_are_sealed_with_the_keys_and_bound_to_their_namespace(clock: ManualClock) -> None:
    shared = MemoryTier(clock=clock)
    await shared.open()
    secret = Secrecy(keys=secrets.token_bytes(32), blinding=secrets.token_bytes(32))
    (one, _), (other, _) = process(shared, clock, secrecy=secret), process(shared, clock, secrecy=secret)
    async with one, other:
        await one.set(REQUEST, "old", label="content/a/2024-01")
        await one.flush()
        assert await other.get(REQUEST) == "old"
        await one.invalidate(pattern="content/*/2024-*")

        async def gone() -> bool:
            return other.get_nowait(REQUEST) is None

        await until(gone)
    assert b"content" not in repr(shared._rules).encode()


async def test_many_patterns_become_labels_and_are_forgotten_by_all(
    shared: MemoryTier, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each process would compare every entry with all patterns there ever were."""
    monkeypatch.setattr("llmcache_fast._markers.MAX_RULES", 16)
    (one, _), (other, _) = process(shared, clock), process(shared, clock)
    async with one, other:
        for cache in (one, other):
            await cache.set({"q": "kept"}, "kept", label="kept/a")
        known = [next(iter(cache._lookup.markers._knowledge)) for cache in (one, other)]
        for each in known:
            each.most_rules = 8
        await one.set(REQUEST, "old", label="content/deep/7")
        for number in range(40):
            await one.invalidate(pattern=f"content/*/{number}")
            await other._lookup.markers._poll()
        await other._lookup.markers._poll()
        assert max(len(each.rules) for each in known) <= 12
        assert await one.get(REQUEST) is None
        assert await one.get({"q": "kept"}) == await other.get({"q": "kept"}) == "kept"


async def test_a_store_that_comes_back_with_an_epoch_of_the_past_is_not_believed(
    shared: MemoryTier, clock: ManualClock
) -> None:
    (one, _), (other, _) = process(shared, clock), process(shared, clock)
    async with one, other:
        await one.set(REQUEST, "old", tags=["t"])
        await one.flush()
        assert await other.get(REQUEST) == "old"
        (space,) = shared._clocks
        before = shared._clocks[space]
        shared._clocks[space] = 1234, clock()

        async def flushed() -> bool:
            return other.get_nowait(REQUEST) is None and one.get_nowait(REQUEST) is None

        await until(flushed)
        shared._clocks[space] = before
        await other._lookup.markers._poll()
        assert await other.get(REQUEST) is None
        for cache in (other, one):
            await cache._lookup.markers._poll()
            assert await cache.get(REQUEST) is None
        assert shared._clocks[space][0] not in (1234, before[0]), "the store began a new epoch"
        await one.set(REQUEST, "new")
        await one.flush()
        assert await other.get(REQUEST) == "new"


async def test_what_is_deferred_is_hidden_whatever_its_stamp_and_delivered_first(
    shared: MemoryTier, clock: ManualClock
) -> None:
    (one, line), (other, _) = process(shared, clock), process(shared, clock)
    async with one, other:
        await until(connected(one))
        line.cut = True
        assert (await one.invalidate(tags=["t"])).deferred
        # Ahead of us by the authority's clock, and of before all the same.
        clock.advance(10)
        await other.invalidate(tags=["else"])
        await other.set(REQUEST, "old", tags=["t"])
        await other.flush()
        assert one.stats().coherence.deferred == 1  # type: ignore[union-attr]
        assert await one.get_or_compute(REQUEST, answer, tags=["t"]) == "new"
        assert await one.get(REQUEST) is None
        line.cut = False

        async def delivered() -> bool:
            return one.stats().coherence.deferred == 0  # type: ignore[union-attr]

        await until(delivered)
        await until(lambda: _is(other, None))
        await one.set(REQUEST, "kept", tags=["t"])
        assert await one.get(REQUEST) == "kept"
