"""One file of deferred invalidations: its bytes (`docs/reference/deferred.md`), its lock, its damage.

What does not belong here: which files there are, and what is owed (`deferred`).
"""

from __future__ import annotations

import binascii
import fcntl
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self, TypeAlias

import msgspec

from llmcache_fast import _core

MAX_FILE = 256 << 20
"""Bytes of a file that is read: own ones are written anew long before."""
_IN_LINE = 1_000

_HEAD = b"llmcache-deferred 1 "
_NAME = re.compile(r"[0-9a-f]{64}\.log")
_BOUND_TO = "deferred invalidations"
"""Stands where the envelope of an entry has its namespace; its kind, too, is not that of an entry."""
_NOT_OURS = frozenset({"no_key", "unknown_key", "unsealed"})

Owed: TypeAlias = dict[int | bytes, int]
"""Of a namespace: each target and rule with the round it was added in."""


class Line(msgspec.Struct, array_like=True, frozen=True):
    """What one line says: these are owed, or those of them added no later than `round` are delivered."""

    delivered: bool
    round: int
    namespace: str
    targets: list[int]
    rules: list[bytes]

    def parts(self) -> Iterator[Line]:
        """The same in lines of a bounded length."""
        for start in range(0, max(len(self.targets), len(self.rules)), _IN_LINE):
            part = slice(start, start + _IN_LINE)
            yield Line(self.delivered, self.round, self.namespace, self.targets[part], self.rules[part])

    def settle(self, owed: Owed) -> None:
        """Take out of `owed` what this line delivers: all, if its namespace's own target is in it."""
        items: Iterable[int | bytes] = {*self.targets, *self.rules}
        if _core.Engine._namespace_id(self.namespace) in items:
            items = list(owed)
        for item in items:
            if owed.get(item, self.round + 1) <= self.round:
                del owed[item]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Line).decode


class LeftAloneError(Exception):
    """The file is not for this process to read; the text says why."""


class DeferredFile:
    """A file that this process has the lock of. Every call waits for the disk."""

    def __init__(self, path: Path, descriptor: int, authority: str, keyring: _core.Keyring | None) -> None:
        self.path = path
        self.items = 0
        """How many were written to it."""
        self._descriptor = descriptor
        self._head = _HEAD + authority.encode() + b"\n"
        self._keyring = keyring
        self._binding = bytes.fromhex(path.stem)

    @classmethod
    def create(cls, folder: Path, authority: str, keyring: _core.Keyring | None) -> Self:
        """A new file with nothing in it yet, in a folder that is made if needed.

        Raises:
            OSError: it could not be made.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            path = folder / f"{secrets.token_hex(32)}.log"
            made = cls._lock(path, authority, keyring, os.O_CREAT | os.O_EXCL)
            if made is None:
                continue  # a process that starts found it before it was locked, and removes it
            return made

    @classmethod
    def free_in(cls, folder: Path, authority: str, keyring: _core.Keyring | None) -> Iterator[Self | OSError]:
        """The files whose processes are gone, locked for this one; what cannot be opened as its error."""
        names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        for name in filter(_NAME.fullmatch, names):
            try:
                file = cls._lock(folder / name, authority, keyring)
            except FileNotFoundError:
                continue
            except OSError as error:
                yield error
                continue
            if file is not None:
                yield file

    @classmethod
    def _lock(cls, path: Path, authority: str, keyring: _core.Keyring | None, flags: int = 0) -> Self | None:
        """None when another process has the lock, or it was removed meanwhile."""
        flags |= os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink:
                return cls(path, descriptor, authority, keyring)
        except BlockingIOError:
            pass
        os.close(descriptor)
        return None

    def write(self, lines: Iterable[Line]) -> None:
        """Append lines; they are on the disk when this returns.

        Raises:
            OSError: they may not be, and the file is to be written no more.
        """
        lines = list(lines)
        head = b"" if os.fstat(self._descriptor).st_size else self._head
        self._append(head + b"".join(map(self._armoured, lines)))
        os.fsync(self._descriptor)
        self.items += sum(len(line.targets) + len(line.rules) for line in lines)

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def publish(self) -> None:
        """Make the file's name durable."""
        _sync_folder(self.path.parent)

    def read(self) -> tuple[dict[str, Owed], int]:
        """By namespace what is owed, and how many lines are damaged. What those named is not known: for them,
        each namespace the file tells of is owed whole.

        Raises:
            LeftAloneError: of another authority or format, or sealed by a key that is not there.
            OSError: it could not be read.
        """
        if os.fstat(self._descriptor).st_size > MAX_FILE:
            raise LeftAloneError("it is too large")
        data = self.path.read_bytes()
        if not data.startswith(self._head):
            # With nothing but its beginning written, nothing was answered because of it.
            if self._head.startswith(data):
                return {}, 0
            raise LeftAloneError("it is of another authority or format")
        owed: dict[str, Owed] = {}
        damaged: list[str] = []
        # What follows the last line end was cut short, and never answered.
        for text in data[len(self._head) :].split(b"\n")[:-1]:
            line, reason = self._line(text)
            if line is None:
                damaged.append(reason)
                continue
            there = owed.setdefault(line.namespace, {})
            if line.delivered:
                line.settle(there)
            else:
                there.update(dict.fromkeys([*line.targets, *line.rules], line.round))
        if damaged and _NOT_OURS.issuperset(damaged):
            raise LeftAloneError("it is sealed by a key that is not there, or not sealed")
        if damaged:
            owed = {namespace: {_core.Engine._namespace_id(namespace): 0} for namespace in owed}
        return owed, len(damaged)

    def close(self) -> None:
        """Let go of the lock; the file stays."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def remove(self) -> None:
        """Delete the file, durably.

        Raises:
            OSError: it may come back.
        """
        try:
            self.path.unlink(missing_ok=True)
            _sync_folder(self.path.parent)
        finally:
            self.close()

    def _armoured(self, line: Line) -> bytes:
        sealed = _core.encode_envelope(
            kind=2,
            content_type=3,
            epoch=0,
            snap=0,
            created=0,
            fresh_until=0,
            stale_until=0,
            compute_micros=0,
            cost=0,
            fingerprint=self._binding,
            namespace=_BOUND_TO,
            facts=b"",
            payload=_encode(line),
            keyring=self._keyring,
        )
        return binascii.b2a_base64(sealed)

    def _line(self, text: bytes) -> tuple[Line | None, str]:
        try:
            sealed = binascii.a2b_base64(text, strict_mode=True)
        except binascii.Error:
            return None, "armour"
        envelope, reason = _core.decode_envelope(sealed, _BOUND_TO, self._binding, self._keyring)
        if envelope is None:
            return None, reason
        try:
            line = _decode(envelope.payload)
        except (msgspec.DecodeError, RecursionError):
            return None, "form"
        sound = all(0 <= target < 1 << 64 for target in line.targets)
        return (line, "") if sound else (None, "form")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
