"""`search`: what a Postgres tier holds, by the facts of its records."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import msgspec
import typer

from llmcache_fast._entry import NEVER
from llmcache_fast._errors import ConfigurationError, TierError
from llmcache_fast.cli import output
from llmcache_fast.cli.migrate import Json, Url, postgres_tier
from llmcache_fast.cli.output import Exit, console, stop, table, write_json

if TYPE_CHECKING:
    from llmcache_fast.tiers.base import FoundRecord, SearchPage

_AGE = re.compile(r"(\d+)([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def search(
    url: Url,
    namespace: Annotated[str, typer.Option(help="The cache's namespace.")] = "default",
    label: Annotated[str | None, typer.Option(help="A label, or all below one: content/blog/*")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag; repeated, all of them are wanted.")] = None,
    model: Annotated[str | None, typer.Option(help="The model's name.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Made after: an age such as 90m, 12h, 7d, or a time in ISO form.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Made before; written as --since.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Records to show, the newest first.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on where an earlier search ended.")] = None,
    json: Json = False,
) -> int:
    """List the records of a Postgres tier by their facts, without the answers. Nothing found exits with 1."""
    tier = postgres_tier(url, migrate=False)

    async def main() -> SearchPage:
        await tier.open()
        try:
            return await tier.search(
                namespace,
                label=label,
                tags=tag,
                model=model,
                created_after=_time(since),
                created_before=_time(until),
                limit=limit,
                cursor=cursor,
            )
        finally:
            await tier.aclose()

    try:
        page = anyio.run(main)
    except ConfigurationError as problem:
        stop(Exit.USAGE, str(problem))
    except TierError as problem:
        stop(Exit.ENVIRONMENT, str(problem))
    if json:
        write_json({"records": [_facts(row) for row in page.rows], "cursor": page.cursor})
    else:
        rows = [
            (
                row.key.hex()[:16],
                row.label or "",
                " ".join(row.tags),
                row.model or "",
                _shown(row.created) or "",
                output.size(row.size),
            )
            for row in page.rows
        ]
        title = f"{len(rows)} of namespace {namespace}"
        console().print(table(title, ["fingerprint", "label", "tags", "model", "created", "size "], rows))
        if page.cursor:
            console().print(f"more: --cursor {page.cursor}")
    return Exit.OK if page.rows else Exit.FOUND


def _facts(row: FoundRecord) -> dict[str, Any]:
    facts = msgspec.structs.asdict(row)
    del facts["key"], facts["cost"]
    return {
        "fingerprint": row.key.hex(),
        **facts,
        "usage": row.usage and msgspec.structs.asdict(row.usage),
        "cost_micro_usd": row.cost,
        **{name: _shown(facts[name]) for name in ("created", "fresh_until", "stale_until")},
    }


def _shown(micros: int) -> str | None:
    return (
        None if micros >= NEVER else datetime.fromtimestamp(micros / 1e6, UTC).isoformat(timespec="seconds")
    )


def _time(text: str | None) -> int | None:
    """An age or a time as microseconds since 1970."""
    if text is None:
        return None
    if age := _AGE.fullmatch(text):
        then = datetime.now(UTC) - timedelta(**{_UNITS[age.group(2)]: int(age.group(1))})
    else:
        try:
            then = datetime.fromisoformat(text)
        except ValueError:
            stop(Exit.USAGE, f"{text!r} is no time: write an age such as 12h, or 2026-01-31T12:00+00:00")
        if then.tzinfo is None:
            then = then.replace(tzinfo=UTC)
    return round(then.timestamp() * 1_000_000)
