"""`invalidate` and `erase`: what a program's cache does, from the command line, on the same tiers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import anyio
import msgspec
import typer

from llmcache_fast import (
    CacheClosedError,
    ConfigurationError,
    Coverage,
    Erasure,
    Invalidation,
    LLMCache,
    TierError,
)
from llmcache_fast._secrecy import Secrecy
from llmcache_fast.cli.output import Exit, console, count, stop, table, write_json
from llmcache_fast.cli.tiers import tiers_at

T = TypeVar("T")

Tiers = Annotated[
    list[str],
    typer.Argument(
        envvar="LLMCACHE_TIERS",
        help="The cache's tiers in its order: addresses, or the folder of a disk tier.",
    ),
]
Tag = Annotated[list[str] | None, typer.Option(help="A tag; repeated, any of them.")]
Label = Annotated[str | None, typer.Option(help="A label, or all below one: content/blog/*")]
Pattern = Annotated[str | None, typer.Option(help="A pattern of labels: content/*/2024-*")]
Key = Annotated[str | None, typer.Option(help="A fingerprint: 64 hex digits.")]
Version = Annotated[str | None, typer.Option(help="A name that entries depend on.")]
Namespace = Annotated[
    str | None, typer.Option(help="The cache's namespace (default); alone, all of it is meant.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Count what is covered; change nothing.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

_OTHER_NAMES = (
    "nothing was invalidated: the records there are under other names than these keys make; set "
    "LLMCACHE_BLINDING or LLMCACHE_BLINDING_FILE as the service has it, or neither if it has none"
)


def invalidate(
    urls: Tiers,
    tag: Tag = None,
    label: Label = None,
    pattern: Pattern = None,
    key: Key = None,
    version: Version = None,
    namespace: Namespace = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Invalidate entries for every process that shares these tiers, at the cost of one round trip.

    The tiers are those of the cache, all of them and in its order: the last one keeps the markers. Exits
    with 3, and invalidates nothing, when the records there are under other names than the blinding secret
    given here makes; with 4 when none of them can be read, so that there is no telling.
    """
    if version is not None and (tag or label or pattern or key):
        stop(Exit.USAGE, "--version stands alone: invalidate the others in a call of their own")
    names = _named(tag, label, pattern, key, namespace)

    async def work(cache: LLMCache) -> Invalidation:
        if version is not None:
            return await cache.bump_version(version, namespace=namespace, dry_run=dry_run)
        return await cache.invalidate(**names, dry_run=dry_run)

    done, known = _with_cache(urls, work)
    if done.covered is not None:
        return _show_coverage(done.covered, json)
    if json:
        write_json({"seq": done.seq, "names_known": known})
    else:
        console().print(f"invalidated, seq {done.seq}")
        if not known:
            console().print(
                "no record there can be read with the keys of LLMCACHE_KEYS and the like: if the service "
                "blinds names, nothing of it was covered"
            )
    return Exit.OK if known else Exit.UNREADABLE


def erase(
    urls: Tiers,
    tag: Tag = None,
    label: Label = None,
    pattern: Pattern = None,
    key: Key = None,
    namespace: Namespace = None,
    journal: Annotated[
        str | None,
        typer.Option(envvar="LLMCACHE_JOURNAL", help="The journal's folder, if the cache has one."),
    ] = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Invalidate entries and delete them physically: from every tier, the journal, the dead letters.

    Exits with 1 when some place could not be looked at to its end: nothing is answered from there any more;
    erase again. Also when there are sealed records and no keys to read them. With --journal, what
    processes that are gone left there is delivered to the tiers.
    """
    names = _named(tag, label, pattern, key, namespace)

    async def work(cache: LLMCache) -> Erasure | Coverage:
        if not dry_run:
            return await cache.erase(**names)
        return (await cache.invalidate(**names, dry_run=True)).covered or Coverage()

    done, _ = _with_cache(urls, work, journal=journal)
    if isinstance(done, Coverage):
        return _show_coverage(done, json)
    if json:
        write_json({**msgspec.structs.asdict(done), "finished": done.finished})
    else:
        rows = [
            ("buffered writes", count(done.buffered)),
            ("journal", count(done.journal)),
            ("dead letters", count(done.dead_letters)),
            *((f"tier {name}", count(number)) for name, number in done.tiers.items()),
        ]
        title = "erased" if done.finished else "erased, but not finished"
        console().print(table(title, ["from", "entries "], rows))
        _show_rest(done.unreadable, done.unfinished)
        if done.elsewhere:
            console().print(
                f"{count(done.elsewhere)} records are in journals of living processes: erase again later"
            )
    return _answer(done.finished, done.unreadable)


def _named(
    tag: list[str] | None, label: str | None, pattern: str | None, key: str | None, namespace: str | None
) -> dict[str, Any]:
    named: dict[str, Any] = {"tags": tag or None, "label": label, "pattern": pattern, "namespace": namespace}
    if key is not None:
        try:
            named["key"] = bytes.fromhex(key)
        except ValueError:
            stop(Exit.USAGE, f"--key: {key!r} is no fingerprint of 64 hex digits")
    return {name: value for name, value in named.items() if value is not None}


def _with_cache(
    urls: list[str], work: Callable[[LLMCache], Awaitable[T]], *, journal: str | None = None
) -> tuple[T, bool]:
    """Run something on an open cache of these tiers, and whether what it names is known there by the same
    names; ends the command when it cannot be done, or would be done to other names."""
    tiers = tiers_at(",".join(urls))
    if not tiers:
        stop(Exit.USAGE, "which tiers? give the addresses of the cache's, or set LLMCACHE_TIERS")

    async def main() -> tuple[T, bool]:
        async with LLMCache(
            tiers=tiers,
            secrecy=Secrecy.from_environment(),
            memory="1MiB",
            journal=journal,
            strict=True,
            sweep_rate=0,
        ) as cache:
            names = await cache._erasures.names()
            if names == "other":
                stop(Exit.ENVIRONMENT, _OTHER_NAMES)
            return await work(cache), names == "known"

    try:
        return anyio.run(main)
    except ConfigurationError as problem:
        stop(Exit.USAGE, str(problem))
    except CacheClosedError as problem:
        stop(Exit.ENVIRONMENT, f"nothing was invalidated for other processes: {problem}")
    except TierError as problem:  # the journal: a tier that fails is left out
        stop(Exit.ENVIRONMENT, str(problem))


def _answer(finished: bool, unreadable: int) -> Exit:
    """Sealed records are no obstacle to who has keys, since he may have thrown theirs away; who has none has
    forgotten to give them, and what he named may be among the records."""
    keyless = unreadable > 0 and Secrecy.from_environment() is None
    return Exit.OK if finished and not keyless else Exit.FOUND


def _show_coverage(covered: Coverage, json: bool) -> Exit:
    if json:
        write_json(covered)
        return _answer(not covered.unfinished, covered.unreadable)
    rows = [(f"tier {name}", count(number)) for name, number in covered.tiers.items()]
    console().print(table("would be covered", ["where", "entries "], rows))
    _show_rest(covered.unreadable, covered.unfinished)
    return _answer(not covered.unfinished, covered.unreadable)


def _show_rest(unreadable: int, unfinished: dict[str, str]) -> None:
    if unreadable:
        console().print(
            f"{count(unreadable)} records cannot be read with the keys of LLMCACHE_KEYS and the like"
        )
    for place, reason in unfinished.items():
        console().print(f"not all of {place} was looked at: {reason}", markup=False)
