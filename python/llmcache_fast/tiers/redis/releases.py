"""Waiting for the release of a lease: who waits for which fingerprint."""

from __future__ import annotations

import asyncio


class Releases:
    """Who waits, woken by what is heard on the tier's subscription.

    While that is down releases pass unheard. Once it is back all who wait are woken: those for whom nothing
    changed find that out by asking again.
    """

    def __init__(self) -> None:
        self._waiting: dict[bytes, set[asyncio.Future[None]]] = {}

    @property
    def waiters(self) -> int:
        return sum(len(futures) for futures in self._waiting.values())

    async def wait(self, key: bytes) -> None:
        """Return when a release of `key` was heard of, or may have been missed."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        futures = self._waiting.setdefault(key, set())
        futures.add(future)
        try:
            await future
        finally:
            futures.discard(future)
            if not futures and self._waiting.get(key) is futures:
                del self._waiting[key]

    def wake(self, key: bytes) -> None:
        """The lease of `key` was released."""
        for future in self._waiting.pop(key, ()):
            if not future.done():
                future.set_result(None)

    def wake_all(self) -> None:
        """Any release may have passed unheard."""
        for key in list(self._waiting):
            self.wake(key)
