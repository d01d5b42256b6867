"""A process of the world: an open `LLMCache` with its own clock, links and folder, through its incarnations.

What does not belong here: what its callers do (`callers`), what the network and the servers do (`servers`).
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path as Folder
from typing import TYPE_CHECKING, Any

from llmcache_fast import LLMCache, NotCachedError
from llmcache_fast._errors import (
    CacheClosedError,
    FlightCancelled,
    FlightDeadlineExceeded,
    TierUnavailableError,
    WaitTimeoutError,
)
from llmcache_fast.testing import ManualClock
from tests.simulation.servers import START, Link, Path

if TYPE_CHECKING:
    from tests.simulation.session import Session

BOUND = 12.0
"""Seconds a call may take in a sick world: budgets, leases, waiting for another's computation."""
WALK_BOUND = 60.0
"""The same of an erasure: each page of its walks has a budget of 10 s."""


class PlannedError(Exception):
    """A computation that was to fail."""


class Process:
    """A process of the world, through its incarnations."""

    def __init__(self, session: Session, index: int) -> None:
        self.session, self.index = session, index
        self.clock = ManualClock(START + session.world.skews[index])
        self._ticked = 0.0
        self.folder: Folder | None = None
        self.paths = {name: Path(session.chance) for name in session.servers}
        self.cache: LLMCache | None = None
        self.name = f"p{index}.0"
        self._incarnation = 0
        self._links: list[Link] = []
        self._life: asyncio.Task[None] | None = None
        self._stop: asyncio.Event = asyncio.Event()
        self._calls: list[asyncio.Task[None]] = []

    def tick(self, now: float) -> None:
        """Let time pass."""
        self.clock.advance(now - self._ticked)
        self._ticked = now

    def step(self, seconds: float) -> None:
        """Set the wall clock; the monotonic one takes no notice."""
        self.clock.set(self.clock() + round(seconds * 1e6))

    async def start(self) -> None:
        """Open a cache, as a new process does."""
        session, world = self.session, self.session.world
        self._incarnation += 1
        self.name = f"p{self.index}.{self._incarnation}"
        self._links = session.links(self)
        options: dict[str, Any] = {}
        if world.durability == "journal":
            if self.folder is None:
                self.folder = session.folder(self.index)
            options["journal"] = self.folder
        tiers: Any = self._links
        cache = LLMCache(
            tiers=tiers,
            clock=self.clock,
            memory=1 << 20,
            namespace="home",
            ttl=world.ttl,
            jitter=0.0,
            stale_while_revalidate=world.stale,
            stale_if_error=world.stale,
            negative_ttl=0.0,
            lease_wait=world.lease_wait,
            deadline=5.0,
            durability=world.durability,
            strict=world.strict,
            coherence_lease=world.lease,
            **options,
        )
        self._stop, opened = asyncio.Event(), asyncio.Event()
        self._life = session.loop.create_task(self._live(cache, self._stop, opened))
        await opened.wait()
        self.cache = cache

    async def _live(self, cache: LLMCache, stop: asyncio.Event, opened: asyncio.Event) -> None:
        try:
            async with cache:
                opened.set()
                await stop.wait()
        finally:
            opened.set()

    def crash(self) -> None:
        """End at once: nothing of it acts any more, and of what it had only its folder is left."""
        cache, self.cache = self.cache, None
        if cache is None:
            return
        session = self.session
        session.oracle.note(f"{self.name} is killed")
        for link in self._links:
            link.kill()
        if self.folder is not None:
            # What the disk has now. The old folder's locks are let go of when the dead are gone.
            old, self.folder = self.folder, session.folder(self.index)
            shutil.copytree(old, self.folder, dirs_exist_ok=True)
        self.abandon()
        self._stop.set()
        assert self._life is not None
        session.dying.append(self._life)

    def abandon(self) -> None:
        for call in self._calls:
            call.cancel()
        self._calls.clear()

    async def stop(self) -> None:
        """Close the cache as a program does."""
        self.cache = None
        self._stop.set()
        if self._life is not None:
            await self._life

    def spawn(
        self, work: Callable[[LLMCache], Awaitable[None]], bound: float = BOUND
    ) -> asyncio.Task[None] | None:
        """Run a caller in it, unless it is dead; a call is over within `bound` seconds."""
        cache = self.cache
        if cache is None:
            return None
        task = self.session.loop.create_task(self._calling(cache, work, bound))
        self._calls = [call for call in self._calls if not call.done()]
        self._calls.append(task)
        return task

    async def _calling(
        self, cache: LLMCache, work: Callable[[LLMCache], Awaitable[None]], bound: float
    ) -> None:
        name = self.name
        started = self.session.loop.now
        try:
            await work(cache)
        except (PlannedError, WaitTimeoutError, NotCachedError, FlightDeadlineExceeded):
            pass
        except (CacheClosedError, FlightCancelled) as error:
            if self.cache is cache:
                self.session.oracle.violated(
                    "I3", f"{name}: {type(error).__name__} in an open cache: {error}"
                )
        except asyncio.CancelledError:
            raise
        except TierUnavailableError as error:
            if not self.session.world.strict:
                self.session.oracle.violated("I6", f"{name}: a tier's failure reached the caller: {error}")
        except Exception as error:
            self.session.oracle.violated("I6", f"{name}: {type(error).__name__}: {error}")
        if self.session.loop.now - started > bound:
            self.session.oracle.violated("I6", f"{name}: a call took {self.session.loop.now - started:.1f} s")
