"""Vectors of a partition come from the tiers: when it is first asked for, and as other processes add to it.

What belongs here: reading the members of a partition. What does not: judging them; that is done when one is
about to be an answer.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import anyio
import anyio.abc
import anyio.lowlevel

from llmcache_fast._entry import VALUE, Entry
from llmcache_fast._errors import TierError
from llmcache_fast._floor import Floor
from llmcache_fast._lookup import Lookup

_log = logging.getLogger("llmcache_fast")

WAIT: Final = 0.25
"""Seconds the first question of a partition waits for its vectors; the reading goes on behind it."""
FOLLOW: Final = 1.0
"""Seconds after which a question starts the reading of what others have added; it does not wait for it."""
PAGE: Final = 256
"""Members that are read in one round trip: half a MB of records."""
AT_ONCE: Final = 16
"""Members that are taken in before others may run: one takes up to half a millisecond in a large one."""
MOST: Final = 20_000
"""Members of a partition that are read; older ones are found exactly all the same."""
REMEMBERED: Final = 50_000
"""Partitions whose place in the tiers is remembered; one that is forgotten is read anew."""


class _Partition:
    """How far the tiers have been read."""

    __slots__ = ("cursors", "done", "next", "running")

    def __init__(self) -> None:
        self.cursors: dict[str, bytes | None] = {}
        self.done = anyio.Event()
        self.running = False
        self.next = 0
        """When to look again: microseconds since 1970."""


class Hydration:
    """What was read of which partition."""

    def __init__(
        self,
        lookup: Lookup,
        note: Callable[[Entry], None],
        *,
        clock: Callable[[], int],
        tasks: anyio.abc.TaskGroup,
    ) -> None:
        """`note` is given each member, not yet judged."""
        self._lookup = lookup
        self._floors = [floor for floor in lookup.floors if hasattr(floor.tier, "members")]
        self._note = note
        self._clock = clock
        self._tasks = tasks
        self._partitions: OrderedDict[bytes, _Partition] = OrderedDict()

    async def ready(self, partition: bytes, namespace: str) -> None:
        """Return when the vectors of a partition are here, or after `WAIT` seconds; at once later on."""
        if not self._floors:
            return
        state = self._partitions.get(partition)
        if state is None:
            state = self._partitions[partition] = _Partition()
            if len(self._partitions) > REMEMBERED:
                self._partitions.popitem(last=False)
        if not state.running and self._clock() >= state.next:
            state.running = True
            self._tasks.start_soon(self._read, state, partition, namespace)
        if not state.done.is_set():
            with anyio.move_on_after(WAIT):
                await state.done.wait()

    def again(self, partition: bytes) -> None:
        """Read a partition from its beginning when it is asked for."""
        self._partitions.pop(partition, None)

    async def _read(self, state: _Partition, partition: bytes, namespace: str) -> None:
        try:
            for floor in self._floors:
                if floor.is_readable:
                    await self._read_floor(state, floor, partition, namespace)
        except Exception as error:  # noqa: BLE001 - a reading in the background may end nothing else
            _log.warning("reading vectors of a partition failed (%s)", type(error).__name__)
        finally:
            state.next = self._clock() + int(FOLLOW * 1_000_000)
            state.running = False
            state.done.set()

    async def _read_floor(self, state: _Partition, floor: Floor, partition: bytes, namespace: str) -> None:
        tier: Any = floor.tier
        name = self._lookup.wire.tier_key(partition)
        try:
            for _ in range(MOST // PAGE):
                after = state.cursors.get(floor.name)
                keys, cursor = await tier.members(name, after, PAGE)
                envelopes = await tier.get_many(keys) if keys else []
                for at, (key, envelope) in enumerate(zip(keys, envelopes, strict=True)):
                    if at % AT_ONCE == AT_ONCE - 1:
                        await anyio.lowlevel.checkpoint()
                    if envelope is not None:
                        self._take(key, envelope, namespace)
                state.cursors[floor.name] = cursor
                if cursor == after:
                    return
        except TierError as error:
            floor.failed("members", error)

    def _take(self, tier_key: bytes, envelope: bytes, namespace: str) -> None:
        seen, _ = self._lookup.wire.examine(envelope)
        if seen is None or seen.namespace != namespace or self._lookup.wire.tier_key(seen.key) != tier_key:
            return
        self._note(
            Entry(
                seen.key,
                namespace,
                "bytes",
                b"",
                seen.facts,
                seen.created,
                seen.fresh_until,
                seen.stale_until,
                seen.epoch,
                seen.snap,
                VALUE,
            )
        )
