"""`migrate`: make the tables of a Postgres tier, or bring them to this version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import anyio
import typer

from llmcache_fast._errors import ConfigurationError, TierError
from llmcache_fast.cli.output import Exit, console, stop, write_json

if TYPE_CHECKING:
    from llmcache_fast.tiers.postgres import PostgresTier

Url = Annotated[
    str,
    typer.Argument(
        envvar="LLMCACHE_POSTGRES_URL",
        help="postgresql://user:password@host/database; the tier's options may follow it.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def migrate(
    url: Url,
    partitions: Annotated[
        int | None, typer.Option(min=0, max=1024, help="Hash partitions of a new table; 0 for none.")
    ] = None,
    sql: Annotated[bool, typer.Option("--print", help="Print the SQL, connect nowhere.")] = False,
    json: Json = False,
) -> int:
    """Make the tables of a Postgres tier, or bring them to the version of this package.

    Processes that do it at the same time take turns. The role must own the schema, or may create it.
    """
    tier = postgres_tier(url, partitions=partitions)
    if sql:
        from llmcache_fast.tiers.postgres.schema import scripts

        console().print(
            "\n".join(script for _, script in scripts(tier.settings.schema, tier.settings.partitions)),
            markup=False,
        )
        return Exit.OK
    try:
        before, after = anyio.run(tier.migrate)
    except TierError as problem:
        stop(Exit.ENVIRONMENT, str(problem))
    if json:
        write_json({"schema": tier.settings.schema, "before": before, "after": after})
    elif before == after:
        console().print(f"schema {tier.settings.schema}: version {after} already")
    else:
        console().print(f"schema {tier.settings.schema}: version {before or 'none'} -> {after}")
    return Exit.OK


def postgres_tier(url: str, *, partitions: int | None = None, **options: Any) -> PostgresTier:
    """The tier at an address; ends the command when there can be none. Error texts hold no password."""
    import dataclasses

    try:
        from llmcache_fast.tiers.postgres import PostgresTier
        from llmcache_fast.tiers.postgres.address import parse
    except ModuleNotFoundError as missing:
        stop(Exit.ENVIRONMENT, f"this needs {missing.name}: pip install 'llmcache-fast[postgres]'")
    try:
        dsn, settings = parse(url)
        if partitions is not None:
            options["partitions"] = partitions
        return PostgresTier(dsn, dataclasses.replace(settings, **options))
    except ConfigurationError as problem:
        stop(Exit.USAGE, str(problem))
