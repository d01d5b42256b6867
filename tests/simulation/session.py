"""One world with its processes, in which schedules run: the real cache over simulated servers.

A process is an open `LLMCache` with its own clock, its own links to the servers, and a folder that outlives it.
What does not belong here: what must hold (`oracle`), what happens when (`schedule`).
"""

from __future__ import annotations

import asyncio
import logging
import random
import shutil
import tempfile
import warnings
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path as Folder
from typing import Any
from unittest import mock

from llmcache_fast import Computed, LLMCache, NotCachedError, _cache
from llmcache_fast._entry import from_envelope
from llmcache_fast._errors import (
    CacheClosedError,
    FlightCancelled,
    FlightDeadlineExceeded,
    TierUnavailableError,
    WaitTimeoutError,
)
from llmcache_fast.actors.journal import Journal
from llmcache_fast.testing import ManualClock
from tests.simulation.loop import VirtualLoop, determinism
from tests.simulation.oracle import NEVER, Computation, Oracle, Violation
from tests.simulation.schedule import REQUESTS, Operation, World
from tests.simulation.servers import AUTHORITY, LEASES, PLAIN, START, Link, Path, Server

PATIENCE = 60.0
"""Seconds of the world after which a call that has not ended is lost, all being well."""
BOUND = 12.0
"""Seconds a call may take in a sick world: budgets, leases, waiting for another's computation."""


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
        cache = LLMCache(
            tiers=self._links,
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

    def spawn(self, work: Callable[[LLMCache], Awaitable[None]]) -> asyncio.Task[None] | None:
        """Run a caller in it, unless it is dead."""
        cache = self.cache
        if cache is None:
            return None
        task = self.session.loop.create_task(self._calling(cache, work))
        self._calls = [call for call in self._calls if not call.done()]
        self._calls.append(task)
        return task

    async def _calling(self, cache: LLMCache, work: Callable[[LLMCache], Awaitable[None]]) -> None:
        name = self.name
        started = self.session.loop.now
        try:
            await work(cache)
        except (PlannedError, WaitTimeoutError, NotCachedError, FlightDeadlineExceeded):
            pass
        except (CacheClosedError, FlightCancelled) as error:
            if self.cache is cache:
                self.session.oracle.violated("I3", f"{name}: {type(error).__name__} in an open cache: {error}")
        except asyncio.CancelledError:
            raise
        except TierUnavailableError as error:
            if not self.session.world.strict:
                self.session.oracle.violated("I6", f"{name}: a tier's failure reached the caller: {error}")
        except Exception as error:
            self.session.oracle.violated("I6", f"{name}: {type(error).__name__}: {error}")
        if self.session.loop.now - started > BOUND:
            self.session.oracle.violated("I6", f"{name}: a call took {self.session.loop.now - started:.1f} s")


class Session:
    """A world in which schedules run."""

    def __init__(self, seed: int, world: World, loop: VirtualLoop) -> None:
        self.seed, self.world, self.loop = seed, world, loop
        self.chance = random.Random(f"network {seed}")
        self.oracle = Oracle(ttl=world.ttl, stale=world.stale, lease=world.lease, journalled=world.durability == "journal")
        self.servers: dict[str, Server] = {}
        self.dying: list[asyncio.Task[None]] = []
        self._folders: list[Folder] = []
        for number, name in enumerate(self._server_names()):
            self.servers[name] = Server(name, loop, self.chance)
            self.servers[name].skew = world.skews[3 + number % 3]
        self.authority = self.servers["postgres" if "postgres" in world.layout else "redis"]
        self.processes = [Process(self, index) for index in range(world.processes)]
        for process in self.processes:
            for path in process.paths.values():
                path.delay = world.delay
        loop.moved = self._moved
        self._order = random.Random()
        if world.shuffled:
            loop.shuffle = self._order.shuffle

    def _server_names(self) -> Sequence[str]:
        if self.world.layout == "disk+redis":
            return ("redis", *(f"disk{index}" for index in range(self.world.processes)))
        return tuple(self.world.layout.split("+"))

    def links(self, process: Process) -> list[Link]:
        """The tiers of a cache, fastest first."""
        everything = (*PLAIN, *AUTHORITY, *LEASES)
        made = []

        def link(name: str, operations: Sequence[str], *, follows: bool, tells: bool) -> None:
            each = Link(self.servers[name], process.paths[name], operations, follows=follows, tells=tells)
            made.append(each)

        if self.world.layout == "disk+redis":
            link(f"disk{process.index}", PLAIN, follows=False, tells=False)
        if "redis" in self.servers:
            link("redis", everything, follows=True, tells=True)
        if "postgres" in self.servers:
            link("postgres", everything, follows=len(self.servers) == 1, tells=False)
        name = process.name
        made[-1].synced = lambda sent: self.oracle.synced(name, sent, self.loop.now)
        made[-1].committed = lambda space, targets: self.oracle.committed(name, space, targets, self.loop.now)
        return made

    def folder(self, index: int) -> Folder:
        parent = "/dev/shm" if Folder("/dev/shm").is_dir() else None
        self._folders.append(Folder(tempfile.mkdtemp(prefix=f"llmcache-sim-{index}-", dir=parent)))
        return self._folders[-1]

    def _moved(self, now: float) -> None:
        for process in self.processes:
            process.tick(now)

    async def open(self) -> None:
        self._moved(self.loop.now)
        for process in self.processes:
            await process.start()

    async def close(self) -> None:
        try:
            for process in self.processes:
                await process.stop()
            if self.dying:
                await asyncio.wait(self.dying)
        finally:
            for folder in self._folders:
                shutil.rmtree(folder, ignore_errors=True)

    # -- one schedule -------------------------------------------------------------------------------

    async def run(self, number: int, schedule: Sequence[Operation]) -> None:
        """Run a schedule in its own namespace, and check."""
        space = f"n{number}"
        # Each has a chance of its own, so that it may happen again without those before it.
        random.seed(f"package {self.seed}/{number}")
        self.chance.seed(f"network {self.seed}/{number}")
        self._order.seed(f"order {self.seed}/{number}")
        calls: list[asyncio.Task[None]] = []
        for operation in schedule:
            if operation.after:
                await asyncio.sleep(operation.after)
            process = self.processes[operation.process]
            task = await self._do(process, space, operation)
            if task is not None:
                calls.append(task)
            if self.oracle.violations:
                return
        for process in self.processes:
            self._mend(process)
            if process.cache is None:
                await process.start()
        await self._check_end(space, calls)

    async def _do(self, process: Process, space: str, operation: Operation) -> asyncio.Task[None] | None:
        options = dict(operation.options)
        match operation.kind:
            case "call":
                return process.spawn(partial(self._call, process, space, options))
            case "look":
                return process.spawn(partial(self._look, process, space, options["request"]))
            case "set":
                return process.spawn(partial(self._set, process, space, options))
            case "invalidate":
                work = self._expire if options["kind"] == "expire" else self._invalidate
                return process.spawn(partial(work, process, space, **options))
            case "crash":
                process.crash()
            case "restart":
                if process.cache is None:
                    await process.start()
            case _:
                self._fault(process, operation.kind, options)
        return None

    def _fault(self, process: Process, kind: str, options: dict[str, Any]) -> None:
        self.oracle.note(f"{self.loop.now:.4f} {process.name}: {kind} {options}")
        names = list(self.servers)
        server = self.servers[names[options.get("server", 0) % len(names)]]
        path = process.paths[server.name]
        match kind:
            case "outage":
                server.is_up = False
                server.disconnect()
            case "cut":
                path.is_cut = True
            case "slow":
                path.slow = 0.5
            case "lose":
                path.lost = 0.6
            case "double":
                path.doubled = 0.5
            case "deafen":
                path.unheard = 0.8
            case "swap":
                path.swapped = 2
            case "mend":
                self._mend(process)
            case "step":
                if options["who"] == 0:
                    self.authority.skew += round(options["seconds"] * 1e6)
                else:
                    process.step(options["seconds"])
            case "copy":
                self.servers[names[0]].remember()
            case "failover":
                # Postgres loses nothing that it acknowledged.
                lossy = self.servers[names[0]]
                if lossy.name != "postgres":
                    lossy.fail_over()
                    self.oracle.stored_is_lost()
                    if lossy is self.authority:
                        self.oracle.failed_over(lossy.copied_at)
                else:
                    lossy.disconnect()

    def _mend(self, process: Process) -> None:
        for server in self.servers.values():
            server.is_up = True
        for path in process.paths.values():
            path.is_cut = False
            path.slow = path.lost = path.doubled = path.unheard = 0.0

    async def _check_end(self, space: str, calls: list[asyncio.Task[None]]) -> None:
        if calls:
            _, lost = await asyncio.wait(calls, timeout=PATIENCE)
            if lost:
                self.oracle.violated("I3", f"{len(lost)} calls did not end")
                return
        await self._probe(space)
        if self.world.durability != "memory" and not self.oracle.violations:
            await self._check_durable(space)
        await self._await_delivery()
        if not self.oracle.violations and self.chance.random() < 0.15:
            await asyncio.sleep(self.world.lease + 0.1)
            await self._probe(space)

    async def _await_delivery(self) -> None:
        """What was deferred reaches the authority, now that all is well."""
        until = self.loop.now + PATIENCE
        living = [process.name for process in self.processes]
        while late := self.oracle.undelivered(living, kept=self.world.durability == "journal"):
            if self.loop.now > until:
                self.oracle.violated("I1", f"the authority was never told of {late[0].kind} {late[0].name}")
                return
            await asyncio.sleep(0.2)

    async def _probe(self, space: str) -> None:
        """Look at all that is there, from everywhere."""
        probes = []
        for process in self.processes:
            for request in range(REQUESTS):
                probes.append(process.spawn(partial(self._look, process, space, request)))
        await asyncio.wait([probe for probe in probes if probe is not None])

    async def _check_durable(self, space: str) -> None:
        for process in self.processes:
            if process.cache is not None:
                await process.cache._lookup.writers.replayed()
                await process.cache.flush(PATIENCE)
        last = list(self.servers.values())[-1] if self.world.layout != "disk+redis" else self.servers["redis"]
        cache = self.processes[0].cache
        assert cache is not None
        for request in range(REQUESTS):
            key = cache.fingerprint(_request(request), namespace=space)
            record = last.records.get(key)
            entry = from_envelope(record.envelope, space, key)[0] if record is not None else None
            found = None if entry is None else int(str(entry.payload).partition("|")[0])
            self.oracle.survived(space, request, found)

    # -- callers ------------------------------------------------------------------------------------

    async def _call(self, process: Process, space: str, options: dict[str, Any], cache: LLMCache) -> None:
        options = dict(options)
        request, leave = options.pop("request"), options.pop("leave", None)
        seconds, outcome = options.pop("seconds"), options.pop("outcome")
        name, tags = process.name, options.get("tags", ())
        named = {key: options[key] for key in ("tags", "label", "depends_on") if key in options}

        async def compute(context: object) -> Any:
            return await self._compute(process, cache, name, space, request, named, seconds, outcome)

        started, now = self.oracle.next(), self.loop.now
        self.oracle.note(f"{now:.4f} {name} calls {space}/{request} {options}")
        work = cache.resolve(_request(request), compute, namespace=space, **options)
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
        key = cache.fingerprint(_request(request), namespace=space)
        flights = [flight for flight in cache._flights._running if flight.key == key and not flight.superseded]
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

    async def _look(self, process: Process, space: str, request: int, cache: LLMCache) -> None:
        started, now, name = self.oracle.next(), self.loop.now, process.name
        result = await cache.resolve(_request(request), _never, namespace=space, only_if_cached=True)
        self.oracle.returned(name, space, request, result, started, now, process.clock(), ())

    async def _set(self, process: Process, space: str, options: dict[str, Any], cache: LLMCache) -> None:
        options = dict(options)
        request, name, oracle = options.pop("request"), process.name, self.oracle
        given: Computation = oracle.begin(name, space, request, self.loop.now, **options)
        given.complete, given.ended, given.stamped, given.window = True, given.step, NEVER, float("inf")
        before = process.clock()
        durable = await cache.set(_request(request), given.value, namespace=space, **options)
        given.stamped = oracle.next()
        given.created, given.window = process.clock(), abs(process.clock() - before) + 1000.0
        if durable and self.world.durability != "memory":
            self.oracle.durable(given)

    async def _invalidate(
        self, process: Process, space: str, cache: LLMCache, *, kind: str, name: Any
    ) -> None:
        by, oracle = process.name, self.oracle
        request = _request(name) if kind in ("key", "delete") else None
        key = None if request is None else cache.fingerprint(request, namespace=space)
        targets = cache._named_targets(
            space,
            keys=[key] if key is not None else [],
            tags=[name] if kind == "tag" else [],
            labels=[name] if kind == "label" else [],
            versions=[name] if kind == "version" else [],
        )
        number = cache._namespace_id(space)
        each = oracle.invalidating(
            by,
            space,
            "key" if kind == "delete" else kind,
            name,
            number,
            targets or [number],
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
            elif kind == "version":
                deferred = (await cache.bump_version(name, namespace=space)).deferred
            else:
                deferred = (await cache.invalidate(namespace=space, **what.get(kind, {}))).deferred
        except CacheClosedError:
            if process.cache is not cache or not self.world.strict:
                raise
            deferred = True  # a strict cache says so by raising; it holds here all the same
        oracle.acknowledge(each, self.loop.now, deferred=deferred)

    async def _expire(self, process: Process, space: str, cache: LLMCache, *, kind: str, name: Any) -> None:
        self.oracle.expired.add((space, name))
        await cache.expire(_request(name), namespace=space)


def _request(number: int) -> dict[str, Any]:
    return {"model": "m", "prompt": number}


async def _end(loop: VirtualLoop) -> None:
    """End the calls that never got an answer."""
    own = asyncio.current_task()
    left = [task for task in asyncio.all_tasks(loop) if task is not own]
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


async def _never(context: object) -> str:
    raise AssertionError("nothing was to be computed")


async def _leaving(work: Awaitable[Any], seconds: float) -> Any:
    """A caller that leaves."""
    try:
        return await asyncio.wait_for(work, seconds)
    except asyncio.TimeoutError:
        return None


@contextmanager
def _quiet() -> Any:
    """Logs and warnings of sick tiers are not what is looked at here."""
    logger = logging.getLogger("llmcache_fast")
    before = logger.disabled, logger.level
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
        logger.disabled = before[0]


def play(
    seed: int,
    world: World,
    schedules: dict[int, Sequence[Operation]],
    *,
    trace: list[str] | None = None,
) -> tuple[int, Violation | None]:
    """Run schedules, by their numbers, in one world; how many ran, and the first violation."""
    loop = VirtualLoop()
    ran = 0
    with ExitStack() as exits:
        exits.enter_context(determinism(seed))
        exits.enter_context(_quiet())
        exits.enter_context(
            mock.patch.object(_cache, "Journal", partial(Journal, segment_bytes=1 << 16))
        )
        session = Session(seed, world, loop)
        session.oracle.trace = trace

        async def run() -> None:
            nonlocal ran
            await session.open()
            try:
                for number, schedule in schedules.items():
                    await session.run(number, schedule)
                    ran += 1
                    if session.oracle.violations:
                        return
            finally:
                if session.oracle.violations:
                    for process in session.processes:
                        process.crash()
                await session.close()

        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(run())
            loop.run_until_complete(_end(loop))
        finally:
            asyncio.set_event_loop(None)
            loop.close()
    return ran, next(iter(session.oracle.violations), None)
