"""`check`: samples the entries of live tiers and looks for what the cache promises never happens.

The judgement of readers (the cache's own code) is compared with one made here from the authority's markers
alone, twice: an invalidation that comes meanwhile is no violation. Nothing is written but one marker of a
namespace of this command's own, to see whether followers hear.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Annotated, Any, Final, NamedTuple

import anyio
import msgspec
import typer

from llmcache_fast import ConfigurationError, LLMCache, TierError
from llmcache_fast._core import Engine
from llmcache_fast._entry import Seen
from llmcache_fast._secrecy import Secrecy
from llmcache_fast._wire import Wire
from llmcache_fast.actors.sweeper import NOTE_KEY
from llmcache_fast.cli.erasing import Tiers
from llmcache_fast.cli.output import Exit, console, count, stop, table, write_json
from llmcache_fast.cli.tiers import tiers_at, with_tiers
from llmcache_fast.cli.tiers import wire as configured_wire
from llmcache_fast.tiers.base import Asked, Changes, Message, Tier

HEARD_WITHIN: Final = 2.0
"""Seconds in which a follower is to hear: the default of `coherence_lease`."""
PROBE: Final = "llmcache-fast check"
"""The namespace whose marker is raised."""
_PAGE: Final = 500

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


class Violation(msgspec.Struct, frozen=True):
    """Something that must not be."""

    invariant: str
    tier: str
    what: str
    namespace: str = ""
    fingerprint: str = ""


class Report(msgspec.Struct, kw_only=True):
    """What a check found."""

    records: dict[str, int] = {}
    """By tier, how many were looked at."""
    namespaces: int = 0
    copies: int = 0
    """Entries that were found in more than one tier and compared."""
    invalid: int = 0
    """Records that an invalidation covers: readers filter them, sweepers delete them."""
    unreadable: int = 0
    heard_ms: float | None = None
    """How long a message took; None where nobody can follow."""
    violations: list[Violation] = []

    @property
    def blind(self) -> bool:
        """Whether there were records, and none of them could be read."""
        return 0 < self.unreadable == sum(self.records.values())


class _Found(NamedTuple):
    tier: int
    key: bytes
    """The tier's."""
    seen: Seen


Judge = Callable[[Seen], Awaitable[bool]]
"""Whether a reader would serve the record, as far as invalidations are concerned."""


def check(
    urls: Tiers,
    sample: Annotated[int, typer.Option(min=0, help="Records of each tier to look at; 0 for all.")] = 1_000,
    json: Json = False,
) -> int:
    """Look for violations of what is promised (I1, I2, I7, I9) among live entries. One exits with 1.

    Where there are records and none can be read with the keys given, nothing was checked: exits with 4.
    """
    tiers, wire = tiers_at(",".join(urls)), configured_wire()
    if not tiers:
        stop(Exit.USAGE, "which tiers? give the addresses of the cache's, or set LLMCACHE_TIERS")

    async def work(opened: list[Tier]) -> Report:
        # A cache on tiers of its own: closing it closes them.
        reading = tiers_at(",".join(urls))
        secrecy = Secrecy.from_environment()
        async with LLMCache(tiers=reading, secrecy=secrecy, memory="1MiB", sweep_rate=0) as cache:
            return await examine(opened, wire, cache._erasures.would_serve, sample=sample)

    try:
        report = with_tiers(tiers, work)
    except ConfigurationError as problem:
        stop(Exit.USAGE, str(problem))
    if json:
        write_json(report)
    else:
        _show(report)
    if report.violations:
        return Exit.FOUND
    return Exit.UNREADABLE if report.blind else Exit.OK


async def examine(
    tiers: Sequence[Tier], wire: Wire, judge: Judge, *, sample: int, patience: float = HEARD_WITHIN
) -> Report:
    """Look at `sample` records of each tier (0: all); the tiers are open, and in the order of a cache. What
    looks wrong is looked at again after `patience` seconds.

    Raises:
        TierError: a tier failed.
        ConfigurationError: none of them keeps markers.
    """
    names = [_name(tiers, at) for at in range(len(tiers))]
    keeping: list[Any] = [tier for tier in tiers if hasattr(tier, "raise_markers")]
    if not keeping:
        raise ConfigurationError("none of these tiers keeps markers: give those of the cache, in its order")
    authority = keeping[-1]
    report = Report()
    found: list[_Found] = []
    for at, tier in enumerate(tiers):
        records = [one async for one in _sampled(tier, sample)] if hasattr(tier, "scan") else []
        report.records[names[at]] = len(records)
        for key, envelope in records:
            seen, _ = wire.examine(envelope)
            if seen is None:
                report.unreadable += 1
            else:
                found.append(_Found(at, key, seen))
    report.namespaces = len({one.seen.namespace for one in found})

    suspects = await _suspects(found, tiers, wire, authority, judge, report)
    if suspects:
        # A reader may be as late as this (I2); and what was under way has ended by then, or was overwritten.
        await anyio.sleep(patience)
    again = []
    for one in dict.fromkeys(one for one, _, _ in suspects):
        (stored,) = await tiers[one.tier].get_many([one.key])
        seen = None if stored is None else wire.examine(stored)[0]
        if seen == one.seen:
            again.append(one)
    confirmed = await _suspects(again, tiers, wire, authority, judge, None)
    report.violations += [
        Violation(invariant, names[one.tier], what, one.seen.namespace, one.seen.key.hex())
        for one, invariant, what in confirmed
    ]
    await _probe(tiers, names, wire, authority, report)
    return report


async def _sampled(tier: Any, sample: int) -> AsyncIterator[tuple[bytes, bytes]]:
    cursor: bytes | None = None
    left = sample or None
    while True:
        records, cursor = await tier.scan(cursor, _PAGE if left is None else min(_PAGE, left))
        for record in records[:left]:
            if record[0] != NOTE_KEY:
                yield record
        left = None if left is None else left - len(records)
        if cursor is None or (left is not None and left <= 0):
            return


async def _suspects(
    found: Sequence[_Found],
    tiers: Sequence[Tier],
    wire: Wire,
    authority: Any,
    judge: Judge,
    report: Report | None,
) -> list[tuple[_Found, str, str]]:
    """What looks like a violation now: the record, the invariant, what is wrong."""
    spaces = sorted({one.seen.namespace for one in found})
    before = await _markers(authority, wire, spaces)
    served = [await judge(one.seen) for one in found]
    after = await _markers(authority, wire, spaces)
    suspects: list[tuple[_Found, str, str]] = []
    for one, serves in zip(found, served, strict=True):
        seen, then, now = one.seen, before[one.seen.namespace], after[one.seen.namespace]
        # Invalid at the end alone: the invalidation came after the reader had judged.
        invalid = _is_invalid(seen, then, wire) and _is_invalid(seen, now, wire)
        if report is not None:
            report.invalid += invalid
        if wire.tier_key(seen.key) != one.key:
            suspects.append((one, "I9", "stands under the name of another entry"))
        if invalid and serves:
            suspects.append((one, "I1", "covered by a marker of the authority, and readers would serve it"))
        if seen.epoch == now.epoch and seen.snap > now.seq:
            suspects.append((one, "I1", "its stamp is ahead of the authority's clock: it would hide markers"))
        if then.epoch == now.epoch and now.seq < then.seq:
            suspects.append((one, "I2", "the authority's clock went back without a new epoch"))
    for one, what in await _younger(found, tiers, wire, report):
        suspects.append((one, "I7", what))
    return suspects


async def _markers(authority: Any, wire: Wire, spaces: Sequence[str]) -> dict[str, Changes]:
    if not spaces:
        return {}
    asked = [Asked(wire.tier_target(Engine._namespace_id(space))) for space in spaces]
    return dict(zip(spaces, await authority.changes(asked), strict=True))


def _is_invalid(seen: Seen, changes: Changes, wire: Wire) -> bool:
    """By the authority's word alone."""
    if seen.epoch != changes.epoch:
        return True
    facts = seen.facts
    targets = Engine._entry_targets(
        seen.namespace, seen.key, list(facts.tags), facts.label, list(facts.depends_on)
    )
    named = set(wire.tier_targets(targets))
    if any(target in named and seq > seen.snap for target, seq in changes.markers):
        return True
    for rule, seq in changes.rules:
        pattern = wire.pattern(seen.namespace, rule)
        covers = facts.label is not None and pattern is not None and Engine._matches(pattern, facts.label)
        if seq > seen.snap and covers:
            return True
    return False


async def _younger(
    found: Sequence[_Found], tiers: Sequence[Tier], wire: Wire, report: Report | None
) -> list[tuple[_Found, str]]:
    """Copies that live longer than, or seem to be made after, what they were copied from."""
    wrong = []
    for at, tier in enumerate(tiers):
        above = [one for one in found if one.tier < at]
        for start in range(0, len(above), _PAGE):
            some = above[start : start + _PAGE]
            for one, envelope in zip(some, await tier.get_many([one.key for one in some]), strict=True):
                source = None if envelope is None else wire.examine(envelope)[0]
                if source is None:
                    continue
                if report is not None:
                    report.copies += 1
                copy = one.seen
                same = (copy.epoch, copy.snap, copy.facts) == (source.epoch, source.snap, source.facts)
                if same and copy.created == source.created and copy.stale_until > source.stale_until:
                    wrong.append((one, f"outlives the copy in {_name(tiers, at)}"))
                elif same and copy.facts.compute_micros and copy.created > source.created:
                    wrong.append((one, f"is younger than the copy in {_name(tiers, at)} of one computation"))
    return wrong


async def _probe(
    tiers: Sequence[Tier], names: Sequence[str], wire: Wire, authority: Any, report: Report
) -> None:
    """Raise a marker that concerns nobody, and see whether it is heard."""
    space = wire.tier_target(Engine._namespace_id(PROBE))
    buses: list[Any] = [tier for tier in tiers if hasattr(tier, "tell")]
    bus = buses[0] if buses else authority
    raised = await authority.raise_markers(space, [space])
    (known,) = await authority.changes([Asked(space)])
    place = names[list(tiers).index(authority)]
    if known.epoch == raised.epoch and known.seq < raised.seq:
        report.violations.append(
            Violation("I2", place, "its clock is behind what it gave out: a copy that lags answers")
        )
    if not hasattr(bus, "follow"):
        return
    following = anyio.Event()
    heard: set[int] = set()
    news = anyio.Event()

    def hear(message: Message | None) -> None:
        nonlocal news
        if message is None:
            following.set()
        elif message.namespace == space:
            heard.add(message.seq)
            news.set()
            news = anyio.Event()

    async def follow() -> None:
        try:
            await bus.follow(hear)
        except TierError:
            return  # then nothing is heard

    async with anyio.create_task_group() as group:
        group.start_soon(follow)
        with anyio.move_on_after(HEARD_WITHIN):
            await following.wait()
            started = anyio.current_time()
            if bus is authority:
                raised = await authority.raise_markers(space, [space])
            else:
                await bus.tell(Message(space, raised.epoch, raised.prev, raised.seq, (space,)))
            while raised.seq not in heard:
                await news.wait()
            report.heard_ms = round((anyio.current_time() - started) * 1e3, 3)
        group.cancel_scope.cancel()
    if report.heard_ms is None:
        place = names[list(tiers).index(bus)]
        what = f"a message was not heard within {HEARD_WITHIN:g} s: processes learn by asking alone"
        report.violations.append(Violation("I2", place, what))


def _name(tiers: Sequence[Tier], at: int) -> str:
    """Of the tier among the others, as `stats` says it."""
    name = tiers[at].name
    return f"{name}#{at + 1}" if name in [tier.name for tier in tiers[:at]] else name


def _show(report: Report) -> None:
    screen = console()
    rows = [
        *((f"records of {name}", count(number)) for name, number in report.records.items()),
        ("namespaces", count(report.namespaces)),
        ("copies compared", count(report.copies)),
        ("invalid, and not served", count(report.invalid)),
        ("not readable with these keys", count(report.unreadable)),
        ("a message is heard after", "-" if report.heard_ms is None else f"{report.heard_ms:.2f} ms"),
    ]
    screen.print(table("looked at", ["what", "number "], rows))
    if report.blind:
        screen.print("no record can be read with these keys, so none was checked: give those of the cache")
    elif not any(report.records.values()):
        screen.print("there are no records")
    if not report.violations:
        screen.print("no violation")
        return
    found = Counter(violation.invariant for violation in report.violations)
    columns = ["invariant", "tier", "namespace", "fingerprint", "what"]
    shown = [(v.invariant, v.tier, v.namespace, v.fingerprint[:16], v.what) for v in report.violations]
    title = "violations: " + ", ".join(f"{number} of {name}" for name, number in sorted(found.items()))
    screen.print(table(title, columns, shown))
