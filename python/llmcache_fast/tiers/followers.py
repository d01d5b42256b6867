"""Hearing, on one machine, of markers that any process raised in a disk tier's folder.

Each follower binds a Unix datagram socket of a random name in `followers/`; who raises markers sends one
datagram to each (`rust/core/src/disk/followers.rs`; in it is a line as in `messages`). What belongs here: the
socket's life and the order of messages. What does not: what a message means.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio

from llmcache_fast._errors import TierError
from llmcache_fast.tiers import messages
from llmcache_fast.tiers.base import Message

LOOK_EVERY = 1.0
"""Seconds after which a follower looks whether its socket is still where senders find it: a folder that was
deleted and made again costs that much of messages, at most. The look is one `stat`."""
_LONGEST = 8192
_AT_ONCE = 64
"""Datagrams taken before other tasks get their turn; the kernel queues 10 by default."""
_NAMESPACES = 4096
"""Whose last seq is remembered, for the order of messages."""


class Followers:
    """The followers of one tier object."""

    def __init__(self, folder: Path) -> None:
        """`folder` is the tier's; it must exist when somebody follows."""
        self._folder = folder / "followers"
        self.malformed = 0
        """Datagrams that were no message."""

    async def follow(
        self, heard: Callable[[Message | None], None], in_thread: Callable[..., Awaitable[Any]]
    ) -> None:
        """As `Feed.follow`; `in_thread` runs what waits for the file system.

        A message that another process overtook is left out: lost, so that the others stay in order.
        """
        try:
            with anyio.CancelScope(shield=True):
                own, path = await in_thread(self._bind)
        except OSError as error:
            raise self._failure(f"cannot make a socket in {self._folder}: {error}", "io") from error
        latest: dict[int, tuple[int, int]] = {}
        try:
            heard(None)
            while True:
                with anyio.move_on_after(LOOK_EVERY) as waiting:
                    await anyio.wait_readable(own)
                for message in self._received(own):
                    epoch, seq = latest.get(message.namespace, (message.epoch, 0))
                    if message.epoch == epoch and message.seq <= seq:
                        continue
                    if len(latest) >= _NAMESPACES:
                        latest.clear()
                    latest[message.namespace] = message.epoch, message.seq
                    heard(message)
                if waiting.cancelled_caught and not path.exists():
                    raise self._failure(f"the socket {path} was deleted: follow again", "lost")
        finally:
            own.close()
            path.unlink(missing_ok=True)

    def _bind(self) -> tuple[socket.socket, Path]:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        path = self._folder / f"{secrets.token_hex(8)}.sock"
        own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            own.setblocking(False)
            # The address of a socket has 108 bytes; by the folder's handle it is short, whatever the folder.
            handle = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                own.bind(f"/proc/self/fd/{handle}/{path.name}")
            finally:
                os.close(handle)
            path.chmod(0o600)
        except BaseException:
            own.close()
            raise
        return own, path

    def _received(self, own: socket.socket) -> list[Message]:
        found = []
        for _ in range(_AT_ONCE):
            try:
                datagram = own.recv(_LONGEST + 1)
            except BlockingIOError:
                break
            message = messages.decode(datagram)
            if message is None:
                self.malformed += 1
            else:
                found.append(message)
        return found

    def _failure(self, message: str, reason: str) -> TierError:
        return TierError(message, tier="disk", operation="follow", reason=reason)
