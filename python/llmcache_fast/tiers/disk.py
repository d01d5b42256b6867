"""The disk tier: the core's `DiskStore` behind the async protocols of a tier.

SQLite needs a local file system; on NFS or SMB its locks and shared memory do not work. A tier belongs to
the process that opened it: after a fork, the child opens its own.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import anyio
import anyio.to_thread

from llmcache_fast._core import DiskStore
from llmcache_fast._errors import ConfigurationError, TierError
from llmcache_fast._options import size_in_bytes
from llmcache_fast.tiers.base import (
    Asked,
    Changes,
    Message,
    PutReport,
    Raised,
    StoredRecord,
    arrival_of,
    clock_micros,
    cursor_at,
)
from llmcache_fast.tiers.followers import Followers

_log = logging.getLogger("llmcache_fast.disk")

T = TypeVar("T")

DEFAULT_MAX_BYTES = 1 << 30
DEFAULT_BUDGET = 0.25
"""Seconds a call waits for other writers of the file. Writers hold it for milliseconds."""
_THREADS = 4
"""Worker threads of one tier: three reads and a write can run at once in the store."""


class DiskTier:
    """Entries in one folder of a local disk, shared by the processes of a machine, bounded in bytes.

    Guarantee: what `put_many` returned for survives the death of the process at any moment (SIGKILL); a
    power cut may lose the last puts, never damages the file, and never loses a marker that `raise_markers`
    returned for. Opening a damaged file sets it aside (`….corrupt-<time>`), makes a fresh one and logs it;
    a foreign or newer file raises `TierUnavailableError` and is left alone.

    Full: expired records go first, then those of the lowest rank, which joins dollars per byte and recency in
    one number (Greedy-Dual-Size-Frequency without its frequency: Cherkasova, HP Labs 1998).

    >>> DiskTier.from_url("disk:///var/lib/app/cache?max_bytes=10GiB").max_bytes
    10737418240
    """

    name = "disk"

    def __init__(
        self,
        path: str | Path,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        budget: float = DEFAULT_BUDGET,
        clock: Callable[[], int] = clock_micros,
    ) -> None:
        """`path` is the folder; `budget` the seconds a call may wait for other writers."""
        if max_bytes < 1 << 20:
            raise ConfigurationError(f"max_bytes is {max_bytes}: the disk tier needs at least 1 MiB")
        if not (0 < budget < math.inf):
            raise ConfigurationError(f"budget is {budget}: give a positive number of seconds")
        self.path = Path(path)
        self.max_bytes = max_bytes
        self.budget = budget
        self._clock = clock
        self._store: DiskStore | None = None
        self._followers = Followers(self.path)
        # Its own: the loop's default limiter is shared with whatever else the program runs in threads.
        self._limiter = anyio.CapacityLimiter(_THREADS)

    @classmethod
    def from_url(cls, url: str, *, clock: Callable[[], int] = clock_micros) -> DiskTier:
        """The tier of `disk:///absolute/path`; options: `max_bytes` (`10GiB`), `budget` (seconds)."""
        parts = urlsplit(url)
        if parts.scheme != "disk" or parts.netloc or not parts.path.startswith("/") or parts.fragment:
            raise ConfigurationError(
                f"tiers: {url!r} is not a disk tier's address; write disk:///absolute/path (three slashes)"
            )
        path = unquote(parts.path)
        max_bytes, budget = DEFAULT_MAX_BYTES, DEFAULT_BUDGET
        for name, text in parse_qsl(parts.query, keep_blank_values=True):
            if name == "max_bytes":
                max_bytes = size_in_bytes("max_bytes", text)
            elif name == "budget":
                budget = _seconds(text)
            else:
                raise ConfigurationError(
                    f"tiers: {url!r}: unknown option {name!r}; a disk tier has max_bytes and budget"
                )
        return cls(path, max_bytes=max_bytes, budget=budget, clock=clock)

    async def open(self) -> None:
        if self._store is not None:
            return
        store = await self._in_thread(DiskStore, str(self.path), self.max_bytes, self.budget)
        if store.set_aside is not None:
            _log.warning(
                "disk tier %s was damaged: the old database is kept as %s, an empty one takes its place",
                self.path,
                store.set_aside,
            )
        self._store = store

    async def aclose(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            with anyio.CancelScope(shield=True):
                await self._in_thread(store.close)

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        # A read may be abandoned: its thread ends within the budget and touches nothing.
        return await self._call("get_many", lambda store: store.get_many(list(keys)), abandon=True)

    async def put_many(self, records: Sequence[StoredRecord]) -> PutReport:
        now = self._clock()
        rows = [record[:6] if record[10] is None else (*record[:6], record[10]) for record in records]
        return PutReport(*await self._call("put_many", lambda store: store.put_many(rows, now)))

    async def delete_many(self, keys: Sequence[bytes], stamp: tuple[int, int] | None = None) -> int:
        return await self._call("delete_many", lambda store: store.delete_many(list(keys)))

    async def purge(self, now: int, limit: int = 1000) -> int:
        return await self._call("purge", lambda store: store.purge(now, limit))

    async def clear(self) -> int:
        return await self._call("clear", lambda store: store.clear())

    async def vacuum(self) -> int:
        """Give empty pages back to the file system; the bytes by which the files shrank."""
        return await self._call("vacuum", lambda store: store.vacuum())

    async def check(self) -> list[str]:
        """Problems of the file, none if it is sound. Reads the whole file: for tools, not for traffic."""
        return await self._call("check", lambda store: store.check(), abandon=True)

    async def stats(self) -> dict[str, int]:
        """Counts and sizes: rows, bytes, file_bytes, log_bytes, evicted, evicted_cost (micro-USD), ..."""
        counts = await self._call("stats", lambda store: store.stats(), abandon=True)
        return {**counts, "malformed": self._followers.malformed}

    async def raise_markers(
        self,
        namespace: int,
        targets: Sequence[int],
        rules: Sequence[bytes] = (),
        *,
        forget: Sequence[bytes] = (),
    ) -> Raised:
        given, now = (namespace, list(targets), list(rules), list(forget)), self._clock()
        return Raised(*await self._call("raise_markers", lambda store: store.raise_markers(*given, now)))

    async def changes(self, asked: Sequence[Asked]) -> list[Changes]:
        now = self._clock()
        found = await self._call("changes", lambda store: store.changes(list(asked), now))
        return [Changes(*each) for each in found]

    async def follow(self, heard: Callable[[Message | None], None]) -> None:
        """As `Feed.follow`: whatever process of the machine raises markers in this folder. Idle, a message
        takes less than a millisecond."""
        self._opened("follow")
        await self._followers.follow(heard)

    async def scan(
        self, cursor: bytes | None = None, limit: int = 500
    ) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        """As `ScannableTier.scan`; a page has about 8 MiB at most, and no record is given twice."""
        if cursor is not None and (len(cursor) != 8 or cursor[0] > 0x7F):
            raise ValueError("cursor: give the one that the scan before returned, or None")
        after = None if cursor is None else int.from_bytes(cursor, "big")
        records, end = await self._call("scan", lambda store: store.scan(after, limit), abandon=True)
        return records, None if end is None else end.to_bytes(8, "big")

    async def members(
        self, partition: bytes, after: bytes | None = None, limit: int = 1000
    ) -> tuple[list[bytes], bytes | None]:
        """As `PartitionedTier`. None of them is gone, and none is forgotten."""
        since = None if after is None else arrival_of(after)
        keys, last = await self._call(
            "members", lambda store: store.members(partition, since, limit), abandon=True
        )
        return keys, after if last is None else cursor_at(last)

    async def discard_many(self, stamped: Sequence[tuple[bytes, int, int]]) -> int:
        return await self._call("discard_many", lambda store: store.discard_many(list(stamped)))

    async def scrub(self) -> list[Path]:
        """Make what was deleted before unreadable in the folder's files, to be called at the end of an erase.
        Returns the files that were set aside as damaged: what is in them is not known, so delete them.

        The database is written anew: time, and room on the disk while it lasts, grow with what is stored
        (a second or two for 100 MiB). Writers of all processes wait meanwhile, and fail as `busy` after their
        budget; readers do not.

        Raises:
            TierError: `busy` when a writer or a reader holds the file for 20 budgets, `full` when there is no
                room. What was deleted may still be readable: scrub again.
        """
        return await self._call("scrub", lambda store: store.scrub())

    async def _call(self, operation: str, work: Callable[[DiskStore], T], *, abandon: bool = False) -> T:
        store = self._opened(operation)
        try:
            return await self._in_thread(work, store, abandon=abandon)
        except TierError as error:
            if error.reason == "corrupt":
                _log.warning("disk tier %s: %s", self.path, error.message)
            raise

    def _opened(self, operation: str) -> DiskStore:
        if self._store is None:
            raise TierError("the tier is not open", tier=self.name, operation=operation, reason="closed")
        return self._store

    async def _in_thread(self, work: Callable[..., T], *args: object, abandon: bool = False) -> T:
        return await anyio.to_thread.run_sync(work, *args, limiter=self._limiter, abandon_on_cancel=abandon)


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigurationError(f"budget is {text!r}: write a number of seconds, such as 0.25") from None
