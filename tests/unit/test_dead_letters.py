"""Dead letters: written, listed, shown without text, replayed and dropped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from llmcache_fast._entry import Facts
from llmcache_fast.actors.dead_letters import DeadLetters
from llmcache_fast.cli.commands import run
from llmcache_fast.cli.output import Exit
from llmcache_fast.testing import ManualClock
from llmcache_fast.tiers.base import NEVER, StoredRecord
from llmcache_fast.tiers.disk import DiskTier

SECRET = b"the stored answer"
FACTS = Facts(tags=("doc:7",), label="a/b", model="m")


def record(number: int, **changes: Any) -> StoredRecord:
    made = StoredRecord(bytes([number]) * 32, SECRET, 1, 1, NEVER, 250, 5, 6, "tenant", FACTS)
    return made._replace(**changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A journal's folder with three letters of the disk tier, one of them expired, and one of another."""

    async def fill() -> None:
        letters = DeadLetters(tmp_path / "dead-letters", clock=ManualClock())
        await letters.add([("disk", "refused", record(1)), ("disk", "io", record(2, facts=None))])
        await letters.add([("redis", "io", record(3)), ("disk", "io", record(4, stale_until=7))])

    anyio.run(fill)
    return tmp_path


def output(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = Exit.OK) -> Any:
    assert run(["dead-letters", *arguments, "--json"]) == code
    text = capsys.readouterr().out
    assert SECRET.decode() not in text
    return json.loads(text)


async def test_a_letter_keeps_its_partition(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path, clock=ManualClock())
    shown, hidden = (
        record(1, partition=bytes(range(32))),
        record(2, facts=None, namespace=None, partition=bytes(32)),
    )
    await letters.add([("disk", "io", shown), ("disk", "io", hidden)])
    assert [letter.record for letter in (await letters.all())[0]] == [shown, hidden]


async def test_letters_come_back_as_they_were(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path, clock=ManualClock())
    await letters.add([("disk", "refused", record(1)), ("disk", "io", record(2, facts=None, namespace=None))])
    found, damaged = await letters.all()
    assert [(letter.tier, letter.reason, letter.record) for letter in found] == [
        ("disk", "refused", record(1)),
        ("disk", "io", record(2, facts=None, namespace=None)),
    ]
    assert (found[0].at, damaged, letters.written) == (ManualClock()(), 0, 2)
    assert await letters.remove([found[0].id]) == 1
    assert [letter.id for letter in (await letters.all())[0]] == [found[1].id]


async def test_a_folder_that_cannot_be_written_is_a_counted_loss(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    letters = DeadLetters(tmp_path / "file")
    await letters.add([("disk", "refused", record(1))])
    assert (letters.written, letters.lost, letters.lost_cost) == (0, 1, 250)


def test_listing_and_showing_give_facts_and_no_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = output(capsys, "list", str(folder))
    assert [(letter["tier"], letter["reason"]) for letter in listed["letters"]] == [
        ("disk", "refused"),
        ("disk", "io"),
        ("redis", "io"),
        ("disk", "io"),
    ]
    assert listed["damaged"] == 0
    shown = output(capsys, "show", str(folder / "dead-letters"), listed["letters"][0]["id"])
    assert shown == listed["letters"][0]
    assert (shown["bytes"], shown["cost_micro_usd"], shown["tags"]) == (len(SECRET), 250, ["doc:7"])
    assert run(["dead-letters", "show", str(folder), "00"]) == Exit.FOUND
    assert run(["dead-letters", "list", str(folder)]) == Exit.OK
    assert SECRET.decode() not in capsys.readouterr().out
    assert run(["dead-letters", "list", str(folder / "nowhere")]) == Exit.USAGE


def test_replaying_writes_what_the_tier_takes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tier = folder / "tier"
    found = output(capsys, "replay", str(folder), "--tier", f"disk://{tier}")
    assert found == {"replayed": 3, "kept": 0, "reasons": {}}
    assert [letter["tier"] for letter in output(capsys, "list", str(folder))["letters"]] == ["redis"]

    async def stored() -> list[bytes | None]:
        opened = DiskTier(tier)
        await opened.open()
        try:
            return await opened.get_many([record(n).key for n in (1, 2, 3, 4)])
        finally:
            await opened.aclose()

    assert anyio.run(stored) == [SECRET, SECRET, None, None]
    assert run(["dead-letters", "replay", str(folder), "--tier", "nonsense://"]) == Exit.USAGE


def test_dropping_takes_what_was_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["dead-letters", "drop", str(folder)]) == Exit.USAGE
    assert output(capsys, "drop", str(folder), "--tier", "redis") == {"dropped": 1}
    first = output(capsys, "list", str(folder))["letters"][0]["id"]
    assert output(capsys, "drop", str(folder), "--id", first) == {"dropped": 1}
    assert output(capsys, "drop", str(folder), "--all") == {"dropped": 2}
    assert output(capsys, "list", str(folder))["letters"] == []
