"""What is never stored, with the common mistake planted to show that the oracle sees it."""

from __future__ import annotations

from types import ModuleType

import pytest

from llmcache_fast.integrations.recording import Recorder, Recording
from tests.integrations.caches import open_cache
from tests.integrations.calls import PATHS, body
from tests.integrations.conftest import Upstream
from tests.integrations.transports import chunks_of, client_of

pytestmark = pytest.mark.anyio

ENDPOINTS = sorted(PATHS)


FAULTS = ["cut", "cut-event", "cut-end", "stream-error", "length", "filter", "refusal", "empty"]


async def never_stored(
    library: ModuleType, upstream: Upstream, endpoint: str, fault: str, *, stream: bool
) -> None:
    """The oracle: two calls that meet the fault are two upstream requests and leave no entry."""
    url = upstream.url + PATHS[endpoint]
    value = body(endpoint, model=f"demo:{fault}", stream=stream)
    outcomes: list[str] = []
    async with open_cache() as cache, client_of(library, cache) as client:
        for _ in range(2):
            try:
                response, _ = await chunks_of(client, url, value)
                outcomes.append(response.headers["x-llmcache"])
            except library.RemoteProtocolError:
                outcomes.append("cut")
        stored = cache.entries
    assert outcomes == (["cut", "cut"] if fault.startswith("cut") else ["miss", "miss"])
    assert stored == 0
    assert upstream.requests == 2


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_interrupted_or_partial_stream_is_never_stored(
    upstream: Upstream, library: ModuleType, endpoint: str, fault: str
) -> None:
    await never_stored(library, upstream, endpoint, fault, stream=True)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "stream-error"])
async def test_partial_body_is_never_stored(
    upstream: Upstream, library: ModuleType, endpoint: str, fault: str
) -> None:
    await never_stored(library, upstream, endpoint, fault, stream=False)


async def test_planted_bug_commit_on_close_is_caught(
    upstream: Upstream, library: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The common mistake, storing what has arrived when the stream ends in whatever way, fails the oracle."""
    honest = Recording.__call__

    async def commit_on_close(self: Recording, recorder: Recorder) -> None:
        try:
            await honest(self, recorder)
        except Exception:
            pass
        finally:
            recorder.commit(usage=None, model=None, cost=None)

    monkeypatch.setattr(Recording, "__call__", commit_on_close)
    with pytest.raises(AssertionError):
        await never_stored(library, upstream, "chat", "cut", stream=True)


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_errors_pass_through_and_are_not_stored(
    upstream: Upstream, library: ModuleType, status: int, stream: bool
) -> None:
    url = upstream.url + PATHS["chat"]
    value = body("chat", model=f"demo:error-{status}", stream=stream)
    async with open_cache() as cache, client_of(library, cache) as client:
        for _ in range(2):
            response = await client.post(url, json=value)
            assert response.status_code == status
            assert "error" in response.json()
            assert ("retry-after" in response.headers) == (status in (429, 503))
        assert cache.entries == 0
    assert upstream.requests == 2


async def test_too_large_is_delivered_and_not_stored(upstream: Upstream, library: ModuleType) -> None:
    for stream in (False, True):
        async with open_cache() as cache, client_of(library, cache, max_bytes=600) as client:
            value = body("chat", model="demo:words-300", stream=stream)
            _, chunks = await chunks_of(client, upstream.url + PATHS["chat"], value)
            assert sum(map(len, chunks)) > 600
            assert cache.entries == 0
