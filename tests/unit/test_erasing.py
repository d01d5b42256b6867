"""`invalidate` and `erase` of the command line, on a disk tier."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import anyio
import pytest

from llmcache_fast import LLMCache, Secrecy, fingerprint
from llmcache_fast.cli.commands import run
from llmcache_fast.cli.output import Exit


@pytest.fixture(autouse=True)
def _no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("LLMCACHE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def tier(tmp_path: Path) -> str:
    """A disk tier with ten entries."""
    address = f"disk://{tmp_path}/tier"

    async def fill() -> None:
        async with LLMCache(tiers=[address]) as cache:
            for number in range(10):
                await cache.set(
                    {"n": number},
                    f"answer {number}",
                    tags=["odd" if number % 2 else "even"],
                    label=f"content/{number}/2024",
                    depends_on=["prices"] if number < 3 else [],
                )

    anyio.run(fill)
    return address


def left(tier: str) -> int:
    async def look() -> int:
        async with LLMCache(tiers=[tier]) as cache:
            found = await cache.get_many([{"n": number} for number in range(10)])
            return sum(value is not None for value in found)

    return anyio.run(look)


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run([*arguments, "--json"]) == Exit.OK
    return json.loads(capsys.readouterr().out)


NAMED = [
    (["--tag", "odd"], 5),
    (["--tag", "odd", "--tag", "even"], 10),
    (["--label", "content/3/*"], 1),
    (["--pattern", "content/?/20*"], 10),
    (["--key", fingerprint({"n": 4}).hex()], 1),
    (["--namespace", "default"], 10),
]


@pytest.mark.parametrize(("named", "covered"), [*NAMED, (["--version", "prices"], 3)])
def test_invalidate_covers_what_its_dry_run_counts(
    tier: str, capsys: pytest.CaptureFixture[str], named: list[str], covered: int
) -> None:
    found = told(capsys, "invalidate", tier, *named, "--dry-run")
    assert found["tiers"] == {"disk": covered}
    assert left(tier) == 10
    assert told(capsys, "invalidate", tier, *named)["seq"] > 0
    assert left(tier) == 10 - covered


@pytest.mark.parametrize(("named", "covered"), NAMED)
def test_erase_deletes_what_its_dry_run_counts(
    tier: str, capsys: pytest.CaptureFixture[str], named: list[str], covered: int
) -> None:
    assert told(capsys, "erase", tier, *named, "--dry-run")["tiers"] == {"disk": covered}
    found = told(capsys, "erase", tier, *named)
    assert found["finished"]
    assert found["tiers"] == {"disk": covered}
    assert left(tier) == 10 - covered
    assert told(capsys, "erase", tier, *named)["tiers"] == {"disk": 0}


def test_people_get_tables(tier: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["invalidate", tier, "--tag", "odd", "--dry-run"]) == Exit.OK
    assert "would be covered" in capsys.readouterr().out
    assert run(["invalidate", tier, "--tag", "odd"]) == Exit.OK
    assert "invalidated, seq" in capsys.readouterr().out
    journal = str(tmp_path / "journal")
    assert run(["erase", tier, "--tag", "odd", "--journal", journal]) == Exit.OK
    assert "tier disk" in capsys.readouterr().out


def test_addresses_come_from_the_environment(
    tier: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMCACHE_TIERS", tier)
    assert told(capsys, "invalidate", "--tag", "odd", "--dry-run")["tiers"] == {"disk": 5}


@pytest.mark.parametrize("command", ["invalidate", "erase"])
@pytest.mark.parametrize(
    "wrong",
    [
        [],
        ["--tag", ""],
        ["--tag", "x" * 257],
        ["--pattern", "*"],
        ["--label", "/a"],
        ["--key", "zz"],
        ["--key", "00"],
        ["--namespace", ""],
    ],
    ids=str,
)
def test_bad_input_is_told_and_changes_nothing(
    tier: str, capsys: pytest.CaptureFixture[str], command: str, wrong: list[str]
) -> None:
    assert run([command, tier, *wrong]) == Exit.USAGE
    assert capsys.readouterr().err
    assert left(tier) == 10


@pytest.mark.parametrize("command", [["invalidate", "--dry-run"], ["erase", "--dry-run"], ["erase"]], ids=str)
def test_sealed_records_and_no_keys_are_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    address, key = (
        f"disk://{tmp_path}/sealed",
        "6f1d3c5a9e8b7f20415263748596a7b8c9dae1f203142536475869708192a3b4",
    )

    async def fill() -> None:
        async with LLMCache(tiers=[address], secrecy=Secrecy({"k": key})) as cache:
            await cache.set({"n": 1}, "answer", tags=["odd"])

    anyio.run(fill)
    arguments = [command[0], address, "--tag", "odd", *command[1:], "--json"]
    assert run(arguments) == Exit.FOUND
    without = json.loads(capsys.readouterr().out)
    assert (without["tiers"], without["unreadable"]) == ({"disk": 0}, 1)
    monkeypatch.setenv("LLMCACHE_KEYS", f"k={key}")
    assert told(capsys, *arguments[:-1])["tiers"] == {"disk": 1}
    # A ring without this key: it was thrown away, perhaps.
    monkeypatch.setenv("LLMCACHE_KEYS", f"other={key[::-1]}")
    assert run(arguments) == Exit.OK


KEY, BLINDING = "6f1d3c5a9e8b7f20415263748596a7b8" * 2, "01f2e3d4c5b6a79889706152433425" * 2 + "16a7"


def sealed_tier(folder: Path, blinding: str | None) -> str:
    address = f"disk://{folder}/sealed"

    async def fill() -> None:
        async with LLMCache(tiers=[address], secrecy=Secrecy({"k": KEY}, blinding=blinding)) as cache:
            await cache.set({"n": 1}, "answer", tags=["odd"])

    anyio.run(fill)
    return address


def left_sealed(address: str, blinding: str | None) -> bool:
    async def look() -> bool:
        async with LLMCache(tiers=[address], secrecy=Secrecy({"k": KEY}, blinding=blinding)) as cache:
            return await cache.get({"n": 1}) is not None

    return anyio.run(look)


@pytest.mark.parametrize(
    ("blinding", "given"), [(BLINDING, None), (BLINDING, BLINDING[::-1]), (None, BLINDING)]
)
@pytest.mark.parametrize("command", [["invalidate"], ["invalidate", "--dry-run"], ["erase"]], ids=str)
def test_what_would_be_done_to_other_names_is_refused(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    blinding: str | None,
    given: str | None,
) -> None:
    address = sealed_tier(tmp_path, blinding)
    arguments = [command[0], address, "--tag", "odd", *command[1:]]
    monkeypatch.setenv("LLMCACHE_KEYS", f"k={KEY}")
    if given is not None:
        monkeypatch.setenv("LLMCACHE_BLINDING", given)
    assert run(arguments) == Exit.ENVIRONMENT
    assert "LLMCACHE_BLINDING" in capsys.readouterr().err
    assert left_sealed(address, blinding)
    if blinding is None:
        monkeypatch.delenv("LLMCACHE_BLINDING")
    else:
        monkeypatch.setenv("LLMCACHE_BLINDING", blinding)
    assert run(arguments) == Exit.OK
    assert left_sealed(address, blinding) == ("--dry-run" in command)


def test_an_invalidation_says_when_it_cannot_know_what_it_covered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = sealed_tier(tmp_path, BLINDING)
    assert run(["invalidate", address, "--tag", "odd"]) == Exit.UNREADABLE
    assert "nothing of it was covered" in capsys.readouterr().out
    assert run(["invalidate", address, "--tag", "odd", "--json"]) == Exit.UNREADABLE
    assert json.loads(capsys.readouterr().out)["names_known"] is False
    assert left_sealed(address, BLINDING)


def test_a_dry_run_that_could_not_look_everywhere_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["invalidate", "redis://127.0.0.1:1", "--tag", "x", "--dry-run", "--json"]) == Exit.FOUND
    assert json.loads(capsys.readouterr().out)["unfinished"] == {"redis": "down"}


def test_a_journal_that_cannot_be_opened(
    tier: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    journal = str(tmp_path / "file" / "journal")
    assert run(["erase", tier, "--tag", "odd", "--journal", journal]) == Exit.ENVIRONMENT
    assert "journal" in capsys.readouterr().err
    assert left(tier) == 10


def test_a_folder_without_a_tier_and_a_tier_that_is_away(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["invalidate", str(tmp_path), "--tag", "x"]) == Exit.FOUND
    assert run(["invalidate", "redis://127.0.0.1:1", "--tag", "x"]) == Exit.ENVIRONMENT
    assert "nothing was invalidated for other processes" in capsys.readouterr().err
    assert run(["invalidate", "ftp://x", "--tag", "x"]) == Exit.USAGE
