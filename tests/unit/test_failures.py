"""What is remembered of failures: refusals, and when to try again."""

from __future__ import annotations

from typing import Any

import pytest

from llmcache_fast import LLMCache, _failures
from llmcache_fast._failures import status_of
from llmcache_fast.testing import ManualClock
from tests.unit.conftest import Calls, StatusError

REQUEST = {"q": 1}


@pytest.fixture
def cache_options() -> dict[str, Any]:
    return {"ttl": 10, "stale_while_revalidate": 20, "stale_if_error": 60}


async def test_a_failure_is_answered_by_the_old_value_and_not_tried_again_at_once(
    cache: LLMCache, clock: ManualClock
) -> None:
    upstream = Calls()
    await cache.get_or_compute(REQUEST, upstream)
    clock.advance(31)
    upstream.error = ConnectionError("down")
    for _ in range(3):
        result = await cache.resolve(REQUEST, upstream)
        assert (result.value, result.status) == ("answer 1", "stale")
    assert upstream.count == 2, "retry-not-before"
    clock.advance(5.1)
    await cache.resolve(REQUEST, upstream)
    assert upstream.count == 3
    clock.advance(60)
    with pytest.raises(ConnectionError):
        await cache.get_or_compute(REQUEST, upstream)
    upstream.error = None
    assert await cache.get_or_compute(REQUEST, upstream) == "answer 5"


@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_a_refusal_is_remembered_for_a_while(cache: LLMCache, clock: ManualClock, status: int) -> None:
    upstream = Calls()
    upstream.error = StatusError(status)
    caught = []
    for _ in range(3):
        with pytest.raises(StatusError) as info:
            await cache.get_or_compute(REQUEST, upstream)
        caught.append(info.value)
    assert upstream.count == 1
    assert len({id(error) for error in caught}) == 3, "each caller has its own exception"
    assert all(error.status_code == status for error in caught)
    clock.advance(30)
    with pytest.raises(StatusError):
        await cache.get_or_compute(REQUEST, upstream)
    assert upstream.count == 2


@pytest.mark.parametrize(
    "error", [*map(StatusError, (401, 403, 408, 429, 500, 503)), TimeoutError(), OSError("reset")]
)
async def test_what_may_pass_is_never_remembered(cache: LLMCache, error: Exception) -> None:
    upstream = Calls()
    upstream.error = error
    for _ in range(2):
        with pytest.raises(type(error)):
            await cache.get_or_compute(REQUEST, upstream)
    assert upstream.count == 2
    assert cache.stats().failures == 2


@pytest.mark.parametrize("end", ["set", "delete", "invalidate", "refresh"])
async def test_a_remembered_refusal_ends_with_its_request(cache: LLMCache, end: str) -> None:
    upstream = Calls()
    upstream.error = StatusError(400)
    with pytest.raises(StatusError):
        await cache.get_or_compute(REQUEST, upstream, tags=["t"])
    upstream.error = None
    if end == "set":
        await cache.set(REQUEST, "set")
        assert await cache.get_or_compute(REQUEST, upstream) == "set"
        return
    if end == "refresh":
        assert await cache.get_or_compute(REQUEST, upstream, refresh=True) == "answer 2"
    else:
        await (cache.delete(REQUEST) if end == "delete" else cache.invalidate(tags=["t"]))
    assert await cache.get_or_compute(REQUEST, upstream) == "answer 2"


async def test_memory_for_failures_is_bounded(cache: LLMCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_failures, "MAX_REMEMBERED", 5)
    upstream = Calls()
    upstream.error = StatusError(400)
    for number in range(8):
        with pytest.raises(StatusError):
            await cache.get_or_compute({"n": number}, upstream)
    for number in (7, 3, 2):
        with pytest.raises(StatusError):
            await cache.get_or_compute({"n": number}, upstream)
    assert upstream.count == 9, "of the first eight, the oldest three were forgotten"


async def test_no_negative_ttl_remembers_nothing() -> None:
    upstream = Calls()
    upstream.error = StatusError(400)
    async with LLMCache(negative_ttl=0) as cache:
        for _ in range(2):
            with pytest.raises(StatusError):
                await cache.get_or_compute(REQUEST, upstream)
    assert upstream.count == 2


def test_the_status_of_an_sdks_exception() -> None:
    class Response:
        status_code = 404

    error = Exception()
    assert status_of(error) is None
    error.response = Response()  # type: ignore[attr-defined]
    assert status_of(error) == 404
    assert status_of(StatusError(422)) == 422
    error.status_code = "400"  # type: ignore[attr-defined]
    assert status_of(error) is None, "no number, no status"
