"""Which records are on their way into which tiers, and what happens at the end of each way.

What belongs here: the journal's side of write-behind: what is done there, what comes back from it, what ends
as a dead letter. What does not: buffers (`write_behind`), what a caller is promised (`writers`).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import anyio

from llmcache_fast.actors.cheapest import Cheapest
from llmcache_fast.actors.dead_letters import DeadLetters
from llmcache_fast.actors.journal import Journal, Lane
from llmcache_fast.actors.write_behind import WriteBehind
from llmcache_fast.actors.write_report import Outcome
from llmcache_fast.tiers.base import StoredRecord

_REFILL_SHARE = 0.5
"""Records come back from the journal while a buffer is at most this full: callers' new ones go first."""
_ADOPT_EVERY = 60.0
"""Seconds after which processes that are gone are looked for again."""
_OVERHEAD = 256
"""Bytes counted per record beside its envelope: its frame in the journal, at most, without facts."""


@dataclass(slots=True, eq=False)
class Receipt:
    """One record's way into its tiers."""

    key: bytes
    names: tuple[str, ...]
    cost: int
    size: int
    left: int
    """A bit for each of `names` whose way has not ended."""
    lane: Lane | None = None
    number: int = 0
    """In the lane; 0: not journalled."""
    replayed: bool = False
    before: list[tuple[Receipt, str]] = field(default_factory=list)
    """Records that this one took the place of: they are done once it is durable or stored."""
    stored: bool = False
    """Whether the last tier has it."""
    ended: anyio.Event | None = None
    """Set when the last tier has it or will not; made by who waits."""

    @property
    def worth(self) -> float:
        return max(self.cost, 1) / self.size


class Ledger:
    """The receipts of all records that are pending in some tier."""

    def __init__(
        self,
        buffers: Mapping[str, WriteBehind],
        journal: Journal | None,
        letters: DeadLetters | None,
        clock: Callable[[], int],
    ) -> None:
        self.buffers, self.journal, self.letters = buffers, journal, letters
        self.counts: Counter[str] = Counter()
        self.replayed = anyio.Event()
        """Set when all that earlier processes left has been handed out."""
        self._clock = clock
        self._journalled: dict[int, Receipt] = {}
        """Those of the own lane, by number."""
        self._cheapest: Cheapest[Receipt] = Cheapest(
            lambda: ((receipt.worth, receipt) for receipt in self._journalled.values())
        )
        self._entering: Receipt | None = None
        self._spilled: deque[tuple[Receipt, str]] = deque()
        self._adopted: deque[Lane] = deque()
        """Lanes whose records are still to be handed out."""
        self._erased: set[tuple[Lane | None, int]] = set()
        """Records of adopted lanes that were erased; they may have been read before."""
        self._dead: deque[tuple[Receipt, str, str, StoredRecord]] = deque()
        self._has_spilled, self._has_dead = anyio.Event(), anyio.Event()
        self._burying = anyio.Lock()
        self._progress = anyio.Event()

    # -- on the way in ------------------------------------------------------------------------------

    def enter(self, record: StoredRecord, names: tuple[str, ...], *, journalled: bool) -> Receipt:
        """Append a record to the journal, if there is room or something cheaper, and to the buffers."""
        size = len(record.envelope) + _OVERHEAD
        receipt = Receipt(record.key, names, record.cost, size, (1 << len(names)) - 1)
        journal = self.journal
        if journalled and journal is not None and names and self._make_room(journal, receipt):
            number = journal.append_nowait(record, "\n".join(names))
            if number is not None:
                receipt.lane, receipt.number = journal.own, number
                self._journalled[number] = receipt
                journal.bytes += size
                self._cheapest.add(receipt.worth, receipt, len(self._journalled))
        self._offer(record, receipt)
        return receipt

    def _offer(self, record: StoredRecord, receipt: Receipt) -> None:
        self._entering = receipt
        try:
            for name in receipt.names:
                self.buffers[name].put_nowait(record, receipt)
        finally:
            self._entering = None

    def fits(self, size: int) -> bool:
        """Whether the journal has room for an envelope of `size` bytes without shedding."""
        journal = self.journal
        return journal is None or journal.bytes + size + _OVERHEAD <= journal.max_bytes

    async def room(self, size: int) -> None:
        """Wait until the journal has room."""
        while not self.fits(size):
            await self._progress.wait()

    def _make_room(self, journal: Journal, newcomer: Receipt) -> bool:
        while journal.bytes + newcomer.size > journal.max_bytes:
            cheapest = self._cheapest.pop(lambda receipt: receipt.number in self._journalled)
            if cheapest is None or cheapest.worth >= newcomer.worth:
                if cheapest is not None:
                    self._cheapest.add(cheapest.worth, cheapest, len(self._journalled))
                journal.counts.undurable += 1
                return False
            self._count("shed", cheapest.cost)
            for name in cheapest.names:
                if self.buffers[name].receipt(cheapest.key) is cheapest:
                    self.buffers[name].drop([cheapest.key])
                self._end(cheapest, name)
        return True

    def drop(self, keys: Iterable[bytes]) -> int:
        """Forget writes of `keys` that the journal alone has; how many there were."""
        wanted = set(keys)
        gone = [(receipt, name) for receipt, name in self._spilled if receipt.key in wanted]
        for receipt, name in gone:
            self._end(receipt, name)
        return len(gone)

    # -- at the end ---------------------------------------------------------------------------------

    def ended(self, name: str, receipt: Receipt, record: StoredRecord, outcome: Outcome, reason: str) -> None:
        """A record's way into the tier `name` is at its end: what every buffer calls."""
        newer = self._entering
        if outcome == "closed":
            if receipt.number:
                self._count("kept", receipt.cost)
            self._announce(receipt, name, stored=False)
        elif outcome == "shed" and receipt.number:
            self._count("spilled", receipt.cost)
            self._spilled.append((receipt, name))
            self._has_spilled.set()
        elif outcome in ("refused", "given_up") and self.letters is not None:
            self._dead.append((receipt, name, reason or outcome, record))
            self._has_dead.set()
            self._announce(receipt, name, stored=False)
        elif outcome == "replaced" and newer is not None and (receipt.number or receipt.ended):
            # Done when the newer one is: were it done now, a crash could lose both.
            if receipt.number and self.journal is not None and self.journal.is_durable(receipt.number):
                self.release(receipt)
            # Of this tier alone: the newer one may not be on its way into the others.
            newer.before += [*(pair for pair in receipt.before if pair[1] == name), (receipt, name)]
            receipt.before = [pair for pair in receipt.before if pair[1] != name]
        else:
            self._end(receipt, name, stored=outcome in ("stored", "superseded"))

    def release(self, receipt: Receipt) -> None:
        """A record is durable: those whose place it took are done."""
        before, receipt.before = receipt.before, []
        for older, name in before:
            self._end(older, name)

    def _end(self, receipt: Receipt, name: str, *, stored: bool = False) -> None:
        bit = 1 << receipt.names.index(name)
        if not receipt.left & bit:
            return
        receipt.left &= ~bit
        if receipt.before:
            older = [pair for pair in receipt.before if pair[1] == name]
            receipt.before = [pair for pair in receipt.before if pair[1] != name]
            for pair in older:
                self._end(*pair, stored=stored)
        self._announce(receipt, name, stored=stored)
        journal = self.journal
        if journal is None or receipt.lane is None:
            return
        journal.done(receipt.lane, receipt.number, bit)
        if not receipt.left and not receipt.replayed:
            del self._journalled[receipt.number]
            journal.bytes -= receipt.size
            self._progress.set()
            self._progress = anyio.Event()

    def _announce(self, receipt: Receipt, name: str, *, stored: bool) -> None:
        if name == receipt.names[-1]:
            receipt.stored = stored
            if receipt.ended is not None:
                receipt.ended.set()

    def _count(self, what: str, cost: int) -> None:
        self.counts[what] += 1
        self.counts[f"{what}_cost"] += cost

    # -- coming back from the journal ---------------------------------------------------------------

    async def refill_forever(self, journal: Journal, configured: frozenset[str]) -> None:
        """Hand out what earlier processes left, then whatever is spilled."""
        for lane in journal.adopted:
            await self._replay(journal, lane, configured)
        self.replayed.set()
        while True:
            with anyio.move_on_after(_ADOPT_EVERY):
                await self._has_spilled.wait()
            self._has_spilled = anyio.Event()
            while self._spilled:
                await self._refill(journal, *self._spilled.popleft())
            for lane in await journal.adopt():
                self._adopted.append(lane)
            while self._adopted:
                await self._replay(journal, self._adopted.popleft(), configured)

    async def _refill(self, journal: Journal, receipt: Receipt, name: str) -> None:
        if receipt.lane is None or not receipt.left & 1 << receipt.names.index(name):
            return
        if receipt.replayed or await journal.durable(receipt.number):
            rows = await journal.read(receipt.lane, receipt.number - 1, 1)
            if rows and rows[0][0] == receipt.number:
                await self._back(rows[0][3], receipt, name)
                return
        self._count("lost", receipt.cost)  # it was never written, or was damaged since
        self._end(receipt, name)

    async def _replay(self, journal: Journal, lane: Lane, configured: frozenset[str]) -> None:
        after = 0
        while rows := await journal.read(lane, after):
            for number, left, tiers, record in rows:
                after = number
                names = tuple(tiers.split("\n"))
                size = len(record.envelope) + _OVERHEAD
                receipt = Receipt(record.key, names, record.cost, size, left, lane, number, replayed=True)
                self.counts["replayed"] += 1
                for bit, name in enumerate(names):
                    if not left >> bit & 1:
                        continue
                    if name in self.buffers:
                        await self._back(record, receipt, name)
                    elif name not in configured:
                        self._count("lost", record.cost)
                        self.ended(name, receipt, record, "given_up", "no_such_tier")
        lane.replayed = True

    async def _back(self, record: StoredRecord, receipt: Receipt, name: str) -> None:
        buffer = self.buffers[name]
        if record.stale_until <= self._clock():
            self._end(receipt, name)
            return
        await buffer.room(record.key, len(record.envelope), _REFILL_SHARE)
        if (receipt.lane, receipt.number) in self._erased or not receipt.left & 1 << receipt.names.index(
            name
        ):
            return  # it had been read before it was erased
        there = buffer.receipt(record.key)
        if there is not None and (not there.replayed or there.number > receipt.number):
            self._end(receipt, name)  # what came since is newer
            return
        self._entering = receipt
        try:
            buffer.put_nowait(record, receipt)
        finally:
            self._entering = None

    # -- dead letters and erasure -------------------------------------------------------------------

    async def bury_forever(self) -> None:
        """Write dead letters as they come."""
        while True:
            await self._has_dead.wait()
            self._has_dead = anyio.Event()
            await self.bury()

    async def bury(self) -> None:
        """Write the dead letters that have come; only then are the records done in the journal."""
        if self.letters is None:
            return
        async with self._burying:
            while self._dead:
                dead = [self._dead.popleft() for _ in range(min(len(self._dead), 256))]
                try:
                    await self.letters.add([(name, reason, record) for _, name, reason, record in dead])
                except BaseException:
                    self._dead.extendleft(reversed(dead))  # cancelled: `aclose` writes them
                    raise
                for receipt, name, _, record in dead:
                    self._count("dead", record.cost)
                    self._end(receipt, name)

    async def erase(self, journal: Journal, predicate: Callable[[StoredRecord], bool]) -> int:
        """Make matching records done in every lane, those of processes that have just gone too; how many were
        not."""
        adopted = await journal.adopt()
        try:
            return await self._erase_in(journal, predicate)
        finally:
            # Only now are they read for the tiers: what is to go is not on its way already.
            self._adopted.extend(adopted)
            self._has_spilled.set()

    async def _erase_in(self, journal: Journal, predicate: Callable[[StoredRecord], bool]) -> int:
        erased = 0
        for lane in list(journal.lanes):
            after = 0
            while rows := await journal.read(lane, after):
                for number, left, _, record in rows:
                    after = number
                    if not predicate(record):
                        continue
                    erased += left.bit_count()
                    receipt = self._journalled.get(number) if lane is journal.own else None
                    if receipt is None:
                        journal.done(lane, number, left)
                        self._erased.add((lane, number))
                    else:
                        for name in receipt.names:
                            self._end(receipt, name)
        return erased
