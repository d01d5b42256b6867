"""`SyncLLMCache`: the same cache for programs without an event loop."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import anyio.from_thread
import anyio.to_thread

from llmcache_fast._cache import LLMCache
from llmcache_fast._entry import CacheResult, Erasure, Invalidation
from llmcache_fast._errors import CacheClosedError
from llmcache_fast._explain import Explanation
from llmcache_fast._options import UNSET
from llmcache_fast._stats import CacheStats
from llmcache_fast.actors.write_report import WriteReport
from llmcache_fast.tiers.base import SearchPage


class SyncLLMCache:
    """A thin face over an `LLMCache` that runs in an event loop of its own, in one thread.

    Any number of threads may use it. A hit in memory does not leave the calling thread. `compute` may be a
    plain function, which runs in a worker thread, or an async one.

    >>> with SyncLLMCache() as cache:                                     # doctest: +SKIP
    ...     reply = cache.get_or_compute(request, call_model)
    """

    def __init__(self, **options: Any) -> None:
        """Options as for `LLMCache`."""
        self._cache = LLMCache(**options)
        self._exits: ExitStack | None = None

    def __enter__(self) -> Self:
        with ExitStack() as exits:
            self._portal = exits.enter_context(anyio.from_thread.start_blocking_portal())
            exits.enter_context(self._portal.wrap_async_context_manager(self._cache))
            self._exits = exits.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        exits, self._exits = self._exits, None
        return None if exits is None else exits.__exit__(kind, error, trace)

    def get(self, request: Any, default: Any = None, **options: Any) -> Any:
        """See `LLMCache.get`."""
        value = self._cache.get_nowait(request, UNSET, **options)
        return self._run(self._cache.get, request, default, **options) if value is UNSET else value

    def get_nowait(self, request: Any, default: Any = None, **options: Any) -> Any:
        """See `LLMCache.get_nowait`."""
        return self._cache.get_nowait(request, default, **options)

    def get_or_compute(self, request: Any, compute: Callable[..., Any], **options: Any) -> Any:
        """See `LLMCache.get_or_compute`."""
        if "refresh" not in options:
            scope = {
                name: options[name] for name in ("type", "namespace", "profile", "variant") if name in options
            }
            value = self._cache.get_nowait(request, UNSET, **scope)
            if value is not UNSET:
                return value
        return self._run(self._cache.get_or_compute, request, _in_thread(compute), **options)

    def resolve(self, request: Any, compute: Callable[..., Any], **options: Any) -> CacheResult[Any]:
        """See `LLMCache.resolve`."""
        result: CacheResult[Any] = self._run(self._cache.resolve, request, _in_thread(compute), **options)
        return result

    def get_many(self, requests: Iterable[Any], default: Any = None, **options: Any) -> list[Any]:
        """See `LLMCache.get_many`."""
        values: list[Any] = self._run(self._cache.get_many, list(requests), default, **options)
        return values

    def set(self, request: Any, value: Any, **options: Any) -> bool:
        """See `LLMCache.set`."""
        return bool(self._run(self._cache.set, request, value, **options))

    def delete(self, request: Any, **options: Any) -> bool:
        """See `LLMCache.delete`."""
        return bool(self._run(self._cache.delete, request, **options))

    def expire(self, request: Any, **options: Any) -> bool:
        """See `LLMCache.expire`."""
        return bool(self._run(self._cache.expire, request, **options))

    def invalidate(self, request: Any = UNSET, **options: Any) -> Invalidation:
        """See `LLMCache.invalidate`."""
        done: Invalidation = self._run(self._cache.invalidate, request, **options)
        return done

    def erase(self, request: Any = UNSET, **options: Any) -> Erasure:
        """See `LLMCache.erase`."""
        done: Erasure = self._run(self._cache.erase, request, **options)
        return done

    def bump_version(self, name: str, **options: Any) -> Invalidation:
        """See `LLMCache.bump_version`."""
        done: Invalidation = self._run(self._cache.bump_version, name, **options)
        return done

    def report_wrong(self, result: CacheResult[Any]) -> bool:
        """See `LLMCache.report_wrong`."""
        return bool(self._run(self._cache.report_wrong, result))

    def search(self, **conditions: Any) -> SearchPage:
        """As `LLMCache.search`."""
        page: SearchPage = self._run(self._cache.search, **conditions)
        return page

    def flush(self, timeout: float | None = None) -> dict[str, WriteReport]:
        """See `LLMCache.flush`."""
        reports: dict[str, WriteReport] = self._run(self._cache.flush, timeout)
        return reports

    def fingerprint(self, request: Any, **options: Any) -> bytes:
        """See `LLMCache.fingerprint`."""
        return self._cache.fingerprint(request, **options)

    def explain(self, request: Any, **options: Any) -> Explanation:
        """See `LLMCache.explain`."""
        return self._cache.explain(request, **options)

    def stats(self) -> CacheStats:
        """See `LLMCache.stats`."""
        return self._cache.stats()

    def _run(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if self._exits is None:
            raise CacheClosedError("the cache is not open: use it inside `with SyncLLMCache(...) as cache`")

        async def call() -> Any:
            return await method(*args, **options)

        return self._portal.call(call)


def _in_thread(compute: Callable[..., Any]) -> Callable[..., Any]:
    method = getattr(compute, "__call__", None)  # noqa: B004 - its kind is asked, not whether it is there
    if inspect.iscoroutinefunction(compute) or inspect.iscoroutinefunction(method):
        return compute

    @functools.wraps(compute)
    async def run(*args: Any) -> Any:
        return await anyio.to_thread.run_sync(compute, *args)

    return run
