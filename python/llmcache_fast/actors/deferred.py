"""Invalidations that the authority could not be told of, kept on disk until it was: what was answered
`deferred` survives the process (I1, I8).

One file for each process, in a folder that several may share. A process that is gone has let go of its file's
lock, and whoever finds it takes over what it owed. What does not belong here: the bytes (`deferred_file`),
delivering, and that they hold in this process meanwhile (`_markers`).
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import anyio
import anyio.to_thread

from llmcache_fast import _core
from llmcache_fast._errors import TierError, TierUnavailableError
from llmcache_fast.actors.deferred_file import DeferredFile, LeftAloneError, Line, Owed

_log = logging.getLogger("llmcache_fast.deferred")

T = TypeVar("T")

FOLDER = "deferred"
"""Name of the folder inside the journal's."""
MAX_KEPT = 1 << 16
"""Targets and rules of a namespace; beyond it, all of the namespace is invalidated in their place."""
_SLACK = 4_096
"""What a file may hold beyond twice what is owed before it is written anew."""


class Deferral(NamedTuple):
    """Invalidations of one namespace that an authority does not know of."""

    namespace: str
    targets: tuple[int, ...]
    rules: tuple[bytes, ...] = ()


@dataclass(slots=True)
class DeferredStatistics:
    """Counts since the log was opened."""

    pending: int = 0
    """Targets and rules that are owed now."""
    failures: int = 0
    """Times the disk failed: what was deferred then is not durable until it works again."""
    adopted: int = 0
    """Files of processes that are gone."""
    damaged: int = 0
    """Lines of them that could not be read: each namespace of their file is owed whole in their place."""
    left_alone: int = 0
    """Files of another authority, format or key, or that cannot be read."""


_open: weakref.WeakSet[DeferredLog] = weakref.WeakSet()


def _leave_in_child() -> None:
    # A forked child has the parent's lock: as long as it lives, nobody could take over what the parent owed.
    for log in list(_open):
        log.leave()


os.register_at_fork(after_in_child=_leave_in_child)


class DeferredLog:
    """What one process owes an authority. Its methods are called in one event loop; files are written in a
    worker thread, in groups: whoever adds while a group is synced shares the next one."""

    def __init__(self, folder: str | Path, *, authority: str, keyring: _core.Keyring | None = None) -> None:
        """`authority` is the name of the tier that is owed: what another is owed is left alone. With a ring,
        lines are sealed."""
        self.folder = Path(folder)
        self._authority = authority
        self._keyring = keyring
        self._owed: dict[str, Owed] = {}
        self._round = 1
        self._file: DeferredFile | None = None
        self._lines: list[Line] = []
        self._appended = self._synced = 0
        """Lines made, and of these, those whose group is on the disk."""
        self._torn = False
        """The last group was not written whole: nothing is appended to this file again."""
        self._counts = DeferredStatistics()
        self._writing = anyio.Lock()

    # -- life ---------------------------------------------------------------------------------------

    async def open(self) -> list[Deferral]:
        """What processes that are gone were owing; from now on this one does. Before anything is read.

        Raises:
            TierError: the folder cannot be used; `reason` is `io`.
        """
        _open.add(self)
        return await self.adopt()

    async def adopt(self) -> list[Deferral]:
        """As `open`, of the processes that have gone since.

        Raises:
            TierError: the folder cannot be used, or what was taken over could not be written.
        """
        deferrals: list[Deferral] = []
        with anyio.CancelScope(shield=True):
            async with self._writing:
                files, deferrals = await self._in_thread("adopt", self._take_over)
                for deferral in deferrals:
                    self._note(*deferral)
                try:
                    if deferrals:
                        await self._in_thread("adopt", self._rewrite, self._snapshot())
                except TierError:
                    for file in files:
                        file.close()  # they are found again
                    raise
                for file in files:
                    await self._in_thread("adopt", file.remove)
                self._counts.adopted += len(files)
        return deferrals

    async def aclose(self) -> None:
        """Write what is not written and let go; what is owed is for the next start. Raises nothing."""
        await self._sync()
        self.leave()

    def leave(self) -> None:
        """Let go of the file's lock, and write nothing."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def statistics(self) -> DeferredStatistics:
        self._counts.pending = sum(map(len, self._owed.values()))
        return self._counts

    # -- owing --------------------------------------------------------------------------------------

    async def add(self, namespace: str, targets: Iterable[int], rules: Iterable[bytes] = ()) -> bool:
        """Owe an invalidation; whether it is on the disk. What is owed already costs nothing.

        A disk that fails is counted and logged; the next call writes all that is owed again.
        """
        self._note(namespace, targets, rules)
        return await self._sync()

    def begin(self) -> int:
        """Before what is owed is delivered: the number to give to `delivered`. What is added afterwards is
        owed again."""
        self._round += 1
        return self._round - 1

    async def delivered(
        self, namespace: str, targets: Iterable[int], rules: Iterable[bytes] = (), *, through: int
    ) -> None:
        """The authority knows of these, as far as they were added before `begin` gave `through`. All of the
        namespace's when its own target is among them. Raises nothing: what is delivered twice is harmless."""
        owed = self._owed.get(namespace)
        if owed is None:
            return
        line = Line(True, through, namespace, list(targets), list(rules))
        line.settle(owed)
        if not owed:
            del self._owed[namespace]
        self._append(line)
        await self._sync()

    def _note(self, namespace: str, targets: Iterable[int], rules: Iterable[bytes] = ()) -> None:
        owed = self._owed.setdefault(namespace, {})
        whole = _core.Engine._namespace_id(namespace)
        if owed.get(whole) == self._round:
            return
        numbers = [target for target in targets if owed.get(target) != self._round]
        patterns = [rule for rule in rules if owed.get(rule) != self._round]
        if len(owed) + len(numbers) + len(patterns) > MAX_KEPT:
            owed.clear()
            numbers, patterns = [whole], []
        owed.update(dict.fromkeys([*numbers, *patterns], self._round))
        self._append(Line(False, self._round, namespace, numbers, patterns))

    def _append(self, line: Line) -> None:
        lines = list(line.parts())
        self._lines += lines
        self._appended += len(lines)

    # -- files --------------------------------------------------------------------------------------

    async def _sync(self) -> bool:
        """Whether all lines made until now are on the disk."""
        wanted = self._appended
        if self._synced >= wanted and not self._torn:
            return True
        with anyio.CancelScope(shield=True):
            async with self._writing:
                if self._synced >= wanted and not self._torn:
                    return True
                try:
                    await self._write_group()
                except TierError as error:
                    self._counts.failures += 1
                    self._torn = True
                    _log.error("deferred invalidations are not durable: %s", error.message)
                    return False
        return True

    async def _write_group(self) -> None:
        lines, self._lines = self._lines, []
        upto = self._appended
        file, owed = self._file, sum(map(len, self._owed.values()))
        if not owed:
            self._file = None
            if file is not None:
                await self._in_thread("deliver", file.remove)
        elif file is None or self._torn or file.items > 2 * owed + _SLACK:
            await self._in_thread("defer", self._rewrite, self._snapshot())
        else:
            await self._in_thread("defer", file.write, lines)
        self._torn = False
        self._synced = upto

    def _snapshot(self) -> list[Line]:
        """Lines that say all that is owed."""
        said: dict[tuple[str, int], Line] = {}
        for namespace, owed in self._owed.items():
            for item, number in owed.items():
                line = said.setdefault((namespace, number), Line(False, number, namespace, [], []))
                if isinstance(item, int):
                    line.targets.append(item)
                else:
                    line.rules.append(item)
        return [part for line in said.values() for part in line.parts()]

    def _rewrite(self, lines: list[Line]) -> None:
        """All that is owed in a new file; a crash leaves the old one, or both, which is the same."""
        made = DeferredFile.create(self.folder, self._authority, self._keyring)
        try:
            made.write(lines)
            made.publish()
        except BaseException:
            made.remove()
            raise
        old, self._file = self._file, made
        if old is not None:
            old.remove()

    def _take_over(self) -> tuple[list[DeferredFile], list[Deferral]]:
        """The files whose processes are gone, locked, and what they tell."""
        files, deferrals = [], []
        for file in DeferredFile.free_in(self.folder, self._authority, self._keyring):
            if isinstance(file, OSError):
                self._left_alone(str(file.filename), str(file.strerror))
                continue
            try:
                owed, damaged = file.read()
            except (LeftAloneError, OSError) as error:
                file.close()
                self._left_alone(str(file.path), str(error))
                continue
            if damaged:
                self._counts.damaged += damaged
                _log.error("deferred invalidations: %d damaged lines in %s", damaged, file.path)
            files.append(file)
            deferrals += [_deferral(namespace, items) for namespace, items in owed.items() if items]
        return files, deferrals

    def _left_alone(self, path: str, why: str) -> None:
        self._counts.left_alone += 1
        _log.error("deferred invalidations in %s are left alone: %s", path, why)

    async def _in_thread(self, operation: str, work: Callable[..., T], *arguments: object) -> T:
        try:
            return await anyio.to_thread.run_sync(work, *arguments)
        except OSError as error:
            message = f"{self.folder} cannot be used ({error.strerror or type(error).__name__})"
            raise TierUnavailableError(message, tier="journal", operation=operation, reason="io") from error


def _deferral(namespace: str, items: Iterable[int | bytes]) -> Deferral:
    whole = _core.Engine._namespace_id(namespace)
    targets = sorted(item for item in items if isinstance(item, int))
    if whole in targets:
        return Deferral(namespace, (whole,))
    return Deferral(namespace, tuple(targets), tuple(item for item in items if isinstance(item, bytes)))
