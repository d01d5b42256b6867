"""`dead-letters`: records that a tier did not take. Facts only: no text of a stored answer is shown."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import anyio
import typer

from llmcache_fast._addresses import tiers_of
from llmcache_fast._core import Clock
from llmcache_fast._entry import NEVER
from llmcache_fast._errors import ConfigurationError, TierError
from llmcache_fast.actors.dead_letters import FOLDER, DeadLetter, DeadLetters
from llmcache_fast.cli.output import Exit, console, count, stop, table, write_json

app = typer.Typer(
    help="Look at the writes that a tier did not take; write them again or drop them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Folder = Annotated[Path, typer.Argument(help="The journal's folder, or its dead-letters.")]
Only = Annotated[list[str] | None, typer.Option("--id", help="Only this letter; may be repeated.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@app.command(name="list")
def list_letters(folder: Folder, json: Json = False) -> int:
    """List the letters: which tier, when, why, and what they are worth."""
    letters, damaged = _read(folder)
    facts = [_facts(letter) for letter in letters]
    if json:
        write_json({"letters": facts, "damaged": damaged})
        return Exit.OK
    shown = ("id", "at", "tier", "reason", "bytes", "cost_micro_usd")
    rows = [[str(letter[name]) for name in shown] for letter in facts]
    console().print(table(f"{count(len(rows))} dead letters", list(shown), rows))
    if damaged:
        console().print(f"damaged in {damaged} places: some letters are lost")
    return Exit.OK


@app.command()
def show(folder: Folder, id: str, json: Json = False) -> int:  # noqa: A002 - the argument's name on the screen
    """Show the facts of one letter, never its text. None of that id exits with 1."""
    letters = _chosen(_read(folder)[0], [id])
    if not letters:
        stop(Exit.FOUND, f"{folder}: there is no letter {id}")
    facts = _facts(letters[0])
    if json:
        write_json(facts)
    else:
        rows = [(name, "" if value is None else str(value)) for name, value in facts.items()]
        console().print(table("dead letter", ["fact", "value"], rows))
    return Exit.OK


@app.command()
def replay(
    folder: Folder,
    tier: Annotated[str, typer.Option(help="The tier's address, such as disk:///var/lib/app/cache.")],
    only: Only = None,
    json: Json = False,
) -> int:
    """Write the letters of a tier again. Those that it takes, or has newer, or that have expired, are gone.

    An older write never overwrites a newer one. Letters still refused are kept, and exit with 1.
    """
    letters = _chosen(_read(folder)[0], only)
    try:
        (opened,) = tiers_of([tier], Clock())
    except ConfigurationError as problem:
        stop(Exit.USAGE, str(problem))
    wanted = [letter for letter in letters if letter.tier.partition("#")[0] == opened.name]
    done: list[DeadLetter] = []
    reasons: dict[str, int] = {}
    now = time.time_ns() // 1000

    async def main() -> None:
        await opened.open()
        try:
            for letter in wanted:
                if letter.record.stale_until <= now:
                    done.append(letter)
                    continue
                try:
                    refused = (await opened.put_many([letter.record])).refused
                except TierError as problem:
                    reasons[problem.reason or "error"] = reasons.get(problem.reason or "error", 0) + 1
                    continue
                if refused:
                    reasons["refused"] = reasons.get("refused", 0) + 1
                else:
                    done.append(letter)
        finally:
            await opened.aclose()
            await _letters(folder).remove([letter.id for letter in done])

    _run(main)
    kept = len(wanted) - len(done)
    found = {"replayed": len(done), "kept": kept, "reasons": reasons}
    if json:
        write_json(found)
    else:
        console().print(
            f"written again: {len(done)}; kept: {len(wanted) - len(done)} {reasons or ''}".rstrip()
        )
    return Exit.FOUND if len(done) < len(wanted) else Exit.OK


@app.command()
def drop(
    folder: Folder,
    tier: Annotated[str, typer.Option(help="Only letters of the tier of this name.")] = "",
    only: Only = None,
    everything: Annotated[bool, typer.Option("--all", help="All letters.")] = False,
    json: Json = False,
) -> int:
    """Delete letters: of a tier, by id, or all."""
    if not (tier or only or everything):
        stop(Exit.USAGE, "which letters? give --id, --tier NAME or --all")
    letters = [letter for letter in _chosen(_read(folder)[0], only) if not tier or letter.tier == tier]

    async def main() -> int:
        return await _letters(folder).remove([letter.id for letter in letters])

    dropped = _run(main)
    if json:
        write_json({"dropped": dropped})
    else:
        console().print(f"dropped: {dropped}")
    return Exit.OK


def _letters(folder: Path) -> DeadLetters:
    inside = folder / FOLDER
    return DeadLetters(inside if inside.is_dir() else folder)


def _read(folder: Path) -> tuple[list[DeadLetter], int]:
    if not folder.is_dir():
        stop(Exit.USAGE, f"{folder}: there is no such folder; give the journal's")
    found: tuple[list[DeadLetter], int] = _run(_letters(folder).all)
    return found


def _run(work: Any) -> Any:
    try:
        return anyio.run(work)
    except TierError as problem:
        stop(Exit.ENVIRONMENT, str(problem))


def _chosen(letters: list[DeadLetter], only: list[str] | None) -> list[DeadLetter]:
    return letters if not only else [letter for letter in letters if letter.id.hex() in only]


def _facts(letter: DeadLetter) -> dict[str, Any]:
    record = letter.record
    facts = record.facts
    return {
        "id": letter.id.hex(),
        "at": _time(letter.at),
        "tier": letter.tier,
        "reason": letter.reason,
        "fingerprint": record.key.hex(),
        "namespace": record.namespace,
        "bytes": len(record.envelope),
        "cost_micro_usd": record.cost,
        "created": _time(record.created),
        "stale_until": _time(record.stale_until),
        "model": facts and facts.model,
        "tags": list(facts.tags) if facts else [],
        "label": facts and facts.label,
    }


def _time(micros: int) -> str | None:
    if micros >= NEVER:
        return None
    return datetime.fromtimestamp(micros / 1e6, UTC).isoformat(timespec="seconds")
