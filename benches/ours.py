"""The in-process tier as `LLMCache` drives it, without the parts of the cache that are written in Python."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from llmcache_fast._core import Clock, Engine

NAMESPACE = "bench"
HOUR = 3600 * 1_000_000


class L1:
    """An open engine of `memory` bytes; its look-up and its insert with everything an entry carries."""

    def __init__(self, memory: int) -> None:
        engine: Any = Engine()
        engine._configure(
            memory=memory,
            namespace=NAMESPACE,
            profile="generic",
            normalize=None,
            clock=Clock(),
            epoch=1,
            alone=True,
        )
        engine._set_open(True)
        self.engine = engine
        self.get = engine.get_nowait
        self.insert = engine._insert
        self.stamp = engine._stamp(Engine._namespace_id(NAMESPACE))

    def put(self, key: bytes, value: bytes) -> None:
        self.put_all([(key, value)])

    def put_all(self, batch: Iterable[tuple[bytes, bytes]]) -> None:
        """Store as `LLMCache` does once it has an entry: its times and stamp are known by then."""
        insert, (epoch, snap), created = self.insert, self.stamp, time.time_ns() // 1000
        until = created + HOUR
        for key, value in batch:
            insert(key, value, NAMESPACE, None, created, until, until, 1000, epoch, snap)


def l1_engine(memory: int) -> L1:
    """An empty in-process tier of so many bytes."""
    return L1(memory)
