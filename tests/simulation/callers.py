"""What callers in a process do, told to the oracle: compute, look, set, invalidate, expire."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from llmcache_fast import Computed, LLMCache
from llmcache_fast._errors import CacheClosedError
from tests.simulation.loop import VirtualLoop
from tests.simulation.oracle import NEVER, Computation, Oracle
from tests.simulation.process import PlannedError, Process
from tests.simulation.schedule import World


class Callers:
    """The callers of one world. Each method is one call, in a process that lives when it starts."""

    def __init__(self, oracle: Oracle, world: World, loop: VirtualLoop) -> None:
        self.oracle, self.world, self.loop = oracle, world, loop

    async def call(self, process: Process, space: str, options: dict[str, Any], cache: LLMCache) -> None:
        options = dict(options)
        request, leave = options.pop("request"), options.pop("leave", None)
        seconds, outcome = options.pop("seconds"), options.pop("outcome")
        name, tags = process.name, options.get("tags", ())
        named: dict[str, Any] = {
            key: options[key] for key in ("tags", "label", "depends_on") if key in options
        }

        async def compute(context: object) -> Any:
            return await self._compute(process, cache, name, space, request, named, seconds, outcome)

        started, now = self.oracle.next(), self.loop.now
        self.oracle.note(f"{now:.4f} {name} calls {space}/{request} {options}")
        work = cache.resolve(request_of(request), compute, namespace=space, **options)
        if leave is not None:
            result = await _leaving(work, leave)
            if result is None:
                return
        else:
            result = await work
        self.oracle.returned(name, space, request, result, started, now, process.clock(), tags)

    async def _compute(
        self,
        process: Process,
        cache: LLMCache,
        name: str,
        space: str,
        request: int,
        named: dict[str, Any],
        seconds: float,
        outcome: str,
    ) -> Any:
        key = cache.fingerprint(request_of(request), namespace=space)
        flights = [
            flight for flight in cache._flights._running if flight.key == key and not flight.superseded
        ]
        self.oracle.flying(name, space, request, len([each for each in flights if each.error is None]))
        computation = self.oracle.begin(name, space, request, self.loop.now, **named)
        await asyncio.sleep(seconds)
        if outcome == "error":
            raise PlannedError
        self.oracle.finish(computation, process.clock(), complete=outcome in ("good", "late"))
        if outcome == "empty":
            return ""
        if outcome == "unstored":
            return Computed(computation.value, store=False)
        if outcome == "late":
            # As an answer does that tells which documents it used.
            computation.tags.add("b")
            return Computed(computation.value, tags=("b",))
        return computation.value

    async def look(self, process: Process, space: str, request: int, cache: LLMCache) -> None:
        started, now, name = self.oracle.next(), self.loop.now, process.name
        result = await cache.resolve(request_of(request), _never, namespace=space, only_if_cached=True)
        self.oracle.returned(name, space, request, result, started, now, process.clock(), ())

    async def set(self, process: Process, space: str, options: dict[str, Any], cache: LLMCache) -> None:
        options = dict(options)
        request, name, oracle = options.pop("request"), process.name, self.oracle
        given: Computation = oracle.begin(name, space, request, self.loop.now, **options)
        given.complete, given.ended, given.stamped, given.window = True, given.step, NEVER, float("inf")
        began, before = self.loop.now, process.clock()
        durable = await cache.set(request_of(request), given.value, namespace=space, **options)
        given.stamped = oracle.next()
        # Anywhere in it, and the clock may have been set meanwhile.
        took, passed = (self.loop.now - began) * 1e6, process.clock() - before
        given.created, given.window = process.clock(), took + abs(passed - took) + 1000.0
        if durable and self.world.durability != "memory":
            self.oracle.durable(given)

    async def invalidate(
        self, process: Process, space: str, cache: LLMCache, *, kind: str, name: Any
    ) -> None:
        by, oracle = process.name, self.oracle
        request = request_of(name) if kind in ("key", "delete") else None
        key = None if request is None else cache.fingerprint(request, namespace=space)
        targets = cache._named_targets(
            space,
            keys=[key] if key is not None else [],
            tags=[name] if kind in ("tag", "erase") else [],
            labels=[name] if kind == "label" else [],
            versions=[name] if kind == "version" else [],
        )
        number = cache._namespace_id(space)
        rules = [cache._lookup.wire.rule(space, name)] if kind == "pattern" else []
        each = oracle.invalidating(
            by,
            space,
            {"delete": "key", "erase": "tag"}.get(kind, kind),
            name,
            number,
            rules if kind == "pattern" else targets or [number],
            self.loop.now,
        )
        what: dict[str, Any] = {
            "key": {"key": key},
            "tag": {"tags": [name]},
            "label": {"label": name},
            "pattern": {"pattern": name},
        }
        try:
            if kind == "delete":
                await cache.delete(request, namespace=space)
                deferred = each.committed_at is None
            elif kind == "erase":
                deferred = (await cache.erase(namespace=space, tags=[name])).deferred
            elif kind == "version":
                deferred = (await cache.bump_version(name, namespace=space)).deferred
            else:
                deferred = (await cache.invalidate(namespace=space, **what.get(kind, {}))).deferred
        except CacheClosedError:
            if process.cache is not cache or not self.world.strict:
                raise
            deferred = True  # a strict cache says so by raising; it holds here all the same
        oracle.acknowledge(each, self.loop.now, deferred=deferred)

    async def expire(self, process: Process, space: str, cache: LLMCache, *, kind: str, name: Any) -> None:
        self.oracle.expired.add((space, name))
        await cache.expire(request_of(name), namespace=space)


def request_of(number: int) -> dict[str, Any]:
    return {"model": "m", "prompt": number}


async def _never(context: object) -> str:
    raise AssertionError("nothing was to be computed")


async def _leaving(work: Awaitable[Any], seconds: float) -> Any:
    """A caller that leaves."""
    try:
        return await asyncio.wait_for(work, seconds)
    except TimeoutError:
        return None
