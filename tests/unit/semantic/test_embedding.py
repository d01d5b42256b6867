"""The embedding actor: batches what has arrived, loses no caller, leaves a dead embedder alone."""

from __future__ import annotations

import math
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from llmcache_fast._errors import ConfigurationError, EmbeddingError
from llmcache_fast.semantic.embedding import EmbeddingActor
from llmcache_fast.tiers.breaker import BreakerOptions
from tests.unit.semantic.conftest import PlannedEmbedder, vector_for

SECRET = "the text of a prompt"
NEVER = BreakerOptions(window=1000, least=1000)


@asynccontextmanager
async def running(embedder: Any, **options: Any) -> AsyncIterator[EmbeddingActor]:
    actor = EmbeddingActor(embedder, **{"budget": 60.0, "pauses": NEVER, **options})
    async with anyio.create_task_group() as group:
        await group.start(actor.run)
        yield actor
        group.cancel_scope.cancel()


async def until_called(embedder: PlannedEmbedder, calls: int) -> None:
    while len(embedder.calls) < calls:
        await checkpoint()


def packed(text: str) -> bytes:
    return struct.pack("<2f", *vector_for(text))


async def test_texts_that_arrive_together_are_embedded_together(planned: PlannedEmbedder) -> None:
    got: dict[str, bytes] = {}
    async with running(planned) as actor:

        async def ask(text: str) -> None:
            got[text] = await actor.vector(text)

        async with anyio.create_task_group() as group:
            for number in range(30):
                group.start_soon(ask, "x" * number)
        statistics = actor.statistics()
    assert got == {"x" * number: packed("x" * number) for number in range(30)}
    assert (statistics.asked, statistics.texts, statistics.waiting, statistics.running) == (30, 30, 0, 0)
    assert statistics.batches == len(planned.calls) <= 2


async def test_a_batch_and_the_calls_under_way_are_bounded(planned: PlannedEmbedder) -> None:
    gate = anyio.Event()
    planned.plan = lambda call: gate
    async with running(planned, max_batch=10, concurrency=2) as actor, anyio.create_task_group() as group:
        for number in range(55):
            group.start_soon(actor.vector, str(number))
        await until_called(planned, 2)
        for _ in range(20):
            await checkpoint()
        assert (len(planned.calls), actor.statistics().waiting, actor.statistics().running) == (2, 35, 2)
        gate.set()
    assert [len(call) for call in planned.calls] == [10, 10, 10, 10, 10, 5]
    assert planned.most_running == 2


async def test_long_texts_make_small_batches(planned: PlannedEmbedder) -> None:
    async with (
        running(planned, max_characters=10, concurrency=1) as actor,
        anyio.create_task_group() as group,
    ):
        for length in (4, 5, 3, 30, 6, 2):
            group.start_soon(actor.vector, "x" * length)
    # In any order: trio draws one.
    assert sorted(len(text) for call in planned.calls for text in call) == [2, 3, 4, 5, 6, 30]
    assert all(len(call) == 1 or sum(map(len, call)) <= 10 for call in planned.calls)
    assert 3 <= len(planned.calls) <= 5


async def test_one_text_is_embedded_once_however_many_ask(planned: PlannedEmbedder) -> None:
    gate = anyio.Event()
    planned.plan = lambda call: gate
    async with running(planned) as actor:
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(actor.vector, "a")
            await until_called(planned, 1)
            for _ in range(5):  # also those who come while it is under way
                group.start_soon(actor.vector, "a")
            for _ in range(5):
                await checkpoint()
            gate.set()
        assert await actor.vector("a") == packed("a")  # and after it
        statistics = actor.statistics()
    assert planned.calls == [["a"]]
    assert (statistics.asked, statistics.joined, statistics.cache.hits) == (11, 9, 1)


async def test_what_was_erased_is_embedded_anew(planned: PlannedEmbedder) -> None:
    async with running(planned) as actor:
        for erased in ("a", None, "b"):
            await actor.vector("a")
            actor.forget(erased)
        await actor.vector("a")
    assert planned.calls == [["a"], ["a"], ["a"]]


async def test_the_remembered_vectors_are_bounded(planned: PlannedEmbedder) -> None:
    async with running(planned, cache_bytes=0) as actor:
        for _ in range(2):
            await actor.vector("a")
    assert len(planned.calls) == 2


# -- cancellation ---------------------------------------------------------------------------------------


async def test_a_text_nobody_waits_for_any_more_is_not_embedded(planned: PlannedEmbedder) -> None:
    gate = anyio.Event()
    planned.plan = lambda call: gate if call == 0 else None
    async with running(planned, concurrency=1) as actor, anyio.create_task_group() as group:
        group.start_soon(actor.vector, "first")
        await until_called(planned, 1)
        async with anyio.create_task_group() as leavers:
            leavers.start_soon(actor.vector, "given up")
            leavers.start_soon(actor.vector, "given up and asked for again")
            await checkpoint()
            await checkpoint()
            leavers.cancel_scope.cancel()
        group.start_soon(actor.vector, "given up and asked for again")
        await checkpoint()
        await checkpoint()
        gate.set()
    assert planned.calls == [["first"], ["given up and asked for again"]]


@pytest.mark.parametrize("rounds", range(8))
async def test_a_cancelled_caller_harms_no_other_whenever_it_leaves(
    planned: PlannedEmbedder, rounds: int
) -> None:
    got: list[bytes] = []
    async with running(planned, max_batch=2) as actor:

        async def ask(text: str) -> None:
            got.append(await actor.vector(text))

        async with anyio.create_task_group() as group:
            leaver = anyio.CancelScope()

            async def leave() -> None:
                with leaver:
                    await actor.vector("shared")

            group.start_soon(leave)
            group.start_soon(ask, "shared")
            group.start_soon(ask, "other")
            for _ in range(rounds):
                await checkpoint()
            leaver.cancel()
        assert await actor.vector("shared") == packed("shared")
        assert actor.statistics().failures == 0
    assert sorted(got) == sorted([packed("shared"), packed("other")])


async def test_a_vector_all_have_left_is_remembered(planned: PlannedEmbedder) -> None:
    gate = anyio.Event()
    planned.plan = lambda call: gate
    async with running(planned) as actor:
        async with anyio.create_task_group() as leavers:
            leavers.start_soon(actor.vector, "a")
            await until_called(planned, 1)
            leavers.cancel_scope.cancel()
        gate.set()
        assert await actor.vector("a") == packed("a")
    assert planned.calls == [["a"]]


async def test_a_cancellation_the_embedder_raises_itself_is_a_failure(
    planned: PlannedEmbedder, anyio_backend: str
) -> None:
    if anyio_backend == "trio":
        return  # nobody can raise trio's
    planned.plan = lambda call: anyio.get_cancelled_exc_class()() if call == 0 else None
    async with running(planned, concurrency=1) as actor:
        with pytest.raises(EmbeddingError, match="raised CancelledError"):
            await actor.vector("a")
        assert await actor.vector("a") == packed("a")


async def test_closing_tells_those_who_wait(planned: PlannedEmbedder) -> None:
    planned.plan = lambda call: anyio.Event()
    actor = EmbeddingActor(planned, budget=60.0, concurrency=1)
    reasons: list[str] = []

    async def ask(text: str) -> None:
        with pytest.raises(EmbeddingError) as caught:
            await actor.vector(text)
        reasons.append(caught.value.reason)

    await ask("before it runs")
    async with anyio.create_task_group() as callers, anyio.create_task_group() as group:
        await group.start(actor.run)
        callers.start_soon(ask, "under way")
        await until_called(planned, 1)
        callers.start_soon(ask, "waiting")
        await checkpoint()
        await checkpoint()
        group.cancel_scope.cancel()
    await ask("after it ran")
    assert reasons == ["closed"] * 4


# -- embedders that fail --------------------------------------------------------------------------------


async def test_a_failure_reaches_each_caller_as_its_own_and_quotes_no_text(
    planned: PlannedEmbedder, caplog: pytest.LogCaptureFixture
) -> None:
    original = ValueError(f"cannot embed {SECRET!r}")
    planned.plan = lambda call: original if call == 0 else None
    caught: list[EmbeddingError] = []
    async with running(planned) as actor:

        async def ask(text: str) -> None:
            with pytest.raises(EmbeddingError) as info:
                await actor.vector(text)
            caught.append(info.value)

        async with anyio.create_task_group() as group:
            for text in (SECRET, SECRET, "another"):
                group.start_soon(ask, text)
        assert await actor.vector(SECRET) == packed(SECRET)
        assert actor.statistics().failures == 1
    assert len({id(error) for error in caught}) == 3
    assert {str(error) for error in caught} == {"embedder planned: it raised ValueError"}
    assert {error.reason for error in caught} == {"failed"}
    assert {error.__cause__ for error in caught} == {original}
    assert SECRET not in caplog.text
    assert "ValueError" in caplog.text


@pytest.mark.parametrize(
    "answer", [[], [[1.0, 0.0]] * 3, [[1.0]], [[1.0, 0.0, 0.0]], "no", 5, [["a", "b"]], [[None, 1.0]]]
)
async def test_an_answer_of_the_wrong_shape_is_a_failure(planned: PlannedEmbedder, answer: Any) -> None:
    planned.plan = lambda call: answer
    async with running(planned) as actor:
        with pytest.raises(EmbeddingError) as caught:
            await actor.vector(SECRET)
        assert actor.statistics().failures == 1
    assert caught.value.reason == "invalid"
    assert SECRET not in str(caught.value)


async def test_a_text_without_direction_is_its_callers_alone(planned: PlannedEmbedder) -> None:
    planned.plan = lambda call: [[0.0, 0.0], [1.0, 0.0], [math.nan, 1.0]]
    reasons: list[str] = []
    async with running(planned, concurrency=1) as actor:

        async def ask(text: str) -> None:
            try:
                assert await actor.vector(text) == struct.pack("<2f", 1.0, 0.0)
                reasons.append("")
            except EmbeddingError as error:
                reasons.append(error.reason)

        async with anyio.create_task_group() as group:
            for text in ("a", "b", "c"):
                group.start_soon(ask, text)
        statistics = actor.statistics()
    assert sorted(reasons) == ["", "no_vector", "no_vector"]
    assert (statistics.without, statistics.failures, statistics.cache.entries) == (2, 0, 1)


async def test_no_caller_waits_beyond_the_budget(planned: PlannedEmbedder) -> None:
    planned.plan = lambda call: anyio.Event()
    async with running(planned, budget=0.01) as actor:
        with pytest.raises(EmbeddingError) as caught:
            await actor.vector(SECRET)
        assert actor.statistics().timeouts + actor.statistics().failures >= 1
    assert caught.value.reason == "timeout"
    assert planned.running == 0


class Stubborn:
    """Takes no notice of cancellation until it is let go."""

    name = "stubborn"
    version = "1"
    dimension = 2

    def __init__(self) -> None:
        self.gate = anyio.Event()
        self.calls = 0

    async def embed(self, texts: Sequence[str]) -> Any:
        self.calls += 1
        with anyio.CancelScope(shield=True):
            await self.gate.wait()
        return [vector_for(text) for text in texts]


async def test_an_embedder_that_does_not_end_costs_one_budget_and_no_more() -> None:
    embedder = Stubborn()
    async with running(embedder, budget=0.01, concurrency=1) as actor:
        with pytest.raises(EmbeddingError) as caught:
            await actor.vector("a")
        assert caught.value.reason == "timeout"
        while True:
            # The call began before its caller waited: it is late a little after the caller is.
            with pytest.raises(EmbeddingError) as caught:
                await actor.vector("a")
            if caught.value.reason == "busy":
                break
        assert actor.statistics().refused == 1
        embedder.gate.set()
        while actor.statistics().running:
            await checkpoint()
        assert await actor.vector("b") == packed("b")


async def test_who_would_wait_in_vain_does_not_wait(planned: PlannedEmbedder) -> None:
    gate = anyio.Event()
    planned.plan = lambda call: gate
    async with running(planned, concurrency=1) as actor, anyio.create_task_group() as group:
        actor._pace = 25.0  # of a budget of 60 seconds
        group.start_soon(actor.vector, "under way")
        await until_called(planned, 1)
        for number in range(3):
            group.start_soon(actor.vector, str(number))
        for _ in range(3):
            await checkpoint()
        with pytest.raises(EmbeddingError, match="too many texts wait") as caught:
            await actor.vector("one more")
        assert (caught.value.reason, actor.statistics().refused) == ("busy", 1)
        gate.set()
    assert actor._pace < 25.0  # it was faster than was thought
    assert [len(call) for call in planned.calls] == [1, 3]


async def test_a_dead_embedder_is_left_alone_and_tried_again(planned: PlannedEmbedder) -> None:
    planned.plan = lambda call: OSError() if call < 3 else None
    pauses = BreakerOptions(window=3, least=3, backoff=0.02, max_backoff=0.02, probes=1)
    async with running(planned, concurrency=1, pauses=pauses, rng=lambda: 0.0) as actor:
        for _ in range(3):
            with pytest.raises(EmbeddingError, match="raised OSError"):
                await actor.vector("a")
        with pytest.raises(EmbeddingError) as caught:
            await actor.vector("a")
        assert caught.value.reason == "open"
        assert len(planned.calls) == 3
        assert (actor.statistics().refused, actor.statistics().state) == (1, "open")
        while True:
            try:
                assert await actor.vector("a") == packed("a")
                break
            except EmbeddingError:
                await checkpoint()
        assert actor.statistics().state == "closed"
    assert len(planned.calls) == 4


async def test_what_is_known_is_known_while_the_embedder_is_left_alone(planned: PlannedEmbedder) -> None:
    planned.plan = lambda call: OSError() if call else None
    pauses = BreakerOptions(window=1, least=1, backoff=60, max_backoff=60)
    async with running(planned, pauses=pauses) as actor:
        known = await actor.vector("a")
        with pytest.raises(EmbeddingError, match="raised OSError"):
            await actor.vector("b")
        with pytest.raises(EmbeddingError, match="not tried"):
            await actor.vector("b")
        assert await actor.vector("a") == known


def test_what_cannot_work_is_refused(planned: PlannedEmbedder) -> None:
    with pytest.raises(ConfigurationError):
        EmbeddingActor(object())  # type: ignore[arg-type]
    refused: list[dict[str, Any]] = [{"max_batch": 0}, {"max_characters": 0}, {"concurrency": 0}]
    refused.append({"budget": 0})
    for options in refused:
        with pytest.raises(ValueError, match="at least 1"):
            EmbeddingActor(planned, **options)
