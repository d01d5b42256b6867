"""One world with its processes, in which schedules run: the real cache over simulated servers.

What does not belong here: what must hold (`oracle`), what happens when (`schedule`), what callers do
(`callers`).
"""

from __future__ import annotations

import asyncio
import logging
import random
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path as Folder
from typing import Any
from unittest import mock

from llmcache_fast import _cache
from llmcache_fast._entry import from_envelope
from llmcache_fast.actors.journal import Journal
from tests.simulation.callers import Callers, request_of
from tests.simulation.loop import VirtualLoop, determinism
from tests.simulation.oracle import Oracle, Violation
from tests.simulation.process import BOUND, WALK_BOUND, Process
from tests.simulation.schedule import REQUESTS, Operation, World
from tests.simulation.servers import AUTHORITY, LEASES, PLAIN, Link, Server

PATIENCE = 60.0
"""Seconds of the world after which a call that has not ended is lost, all being well."""


class Session:
    """A world in which schedules run."""

    def __init__(self, seed: int, world: World, loop: VirtualLoop) -> None:
        self.seed, self.world, self.loop = seed, world, loop
        self.chance = random.Random(f"network {seed}")
        self.oracle = Oracle(
            ttl=world.ttl, stale=world.stale, lease=world.lease, journalled=world.durability == "journal"
        )
        self.callers = Callers(self.oracle, world, loop)
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
        made[-1].synced = lambda spaces, sent: self.oracle.synced(name, spaces, sent, self.loop.now)
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
                return process.spawn(partial(self.callers.call, process, space, options))
            case "look":
                return process.spawn(partial(self.callers.look, process, space, options["request"]))
            case "set":
                return process.spawn(partial(self.callers.set, process, space, options))
            case "invalidate":
                work = self.callers.expire if options["kind"] == "expire" else self.callers.invalidate
                bound = WALK_BOUND if options["kind"] == "erase" else BOUND
                return process.spawn(partial(work, process, space, **options), bound)
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
                lossy.skew += round(options.get("seconds", 0.0) * 1e6)
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
        if self.world.durability != "memory" and self.world.ttl > PATIENCE and not self.oracle.violations:
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
        probes = [
            process.spawn(partial(self.callers.look, process, space, request))
            for process in self.processes
            for request in range(REQUESTS)
        ]
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
            key = cache.fingerprint(request_of(request), namespace=space)
            record = last.records.get(key)
            entry = from_envelope(record.envelope, space, key)[0] if record is not None else None
            found = None if entry is None else int(str(entry.payload).partition("|")[0])
            self.oracle.survived(space, request, found)


async def _end(loop: VirtualLoop) -> None:
    """End the calls that never got an answer."""
    own = asyncio.current_task()
    left = [task for task in asyncio.all_tasks(loop) if task is not own]
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Logs and warnings of sick tiers are not what is looked at here."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def play(
    seed: int,
    world: World,
    schedules: Mapping[int, Sequence[Operation]],
    *,
    trace: list[str] | None = None,
) -> tuple[int, Violation | None]:
    """Run schedules, by their numbers, in one world; how many ran, and the first violation."""
    loop = VirtualLoop()
    ran = 0
    with ExitStack() as exits:
        exits.enter_context(determinism(seed))
        exits.enter_context(_quiet())
        exits.enter_context(mock.patch.object(_cache, "Journal", partial(Journal, segment_bytes=1 << 16)))
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
