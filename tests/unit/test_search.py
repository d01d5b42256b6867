"""`llmcache-fast search`, against a real server."""

from __future__ import annotations

import json

import anyio
import pytest

from llmcache_fast._entry import NEVER, Facts
from llmcache_fast.cli.commands import run
from llmcache_fast.cli.output import Exit
from llmcache_fast.tiers.base import StoredRecord, clock_micros
from llmcache_fast.tiers.postgres import PostgresTier
from tests.servers.postgres import free_port


@pytest.fixture
def filled(postgres_url: str) -> str:
    """A tier with three records, a minute, a day and a month old."""

    async def main() -> None:
        tier = PostgresTier.from_url(postgres_url)
        await tier.open()
        ages = [60, 86_400, 30 * 86_400]
        await tier.put_many(
            [
                StoredRecord(
                    bytes([number]) * 32,
                    b"the answer",
                    1,
                    1,
                    NEVER,
                    7,
                    clock_micros() - age * 1_000_000,
                    NEVER,
                    "default",
                    Facts(tags=("doc:7", f"n:{number}"), label=f"content/{number}", model="gpt-5"),
                )
                for number, age in enumerate(ages)
            ]
        )
        await tier.aclose()

    anyio.run(main)
    return postgres_url


def found(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [row["label"] for row in json.loads(capsys.readouterr().out)["records"]]


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ([], ["content/0", "content/1", "content/2"]),
        (["--label", "content/1"], ["content/1"]),
        (["--label", "content/*", "--tag", "doc:7", "--tag", "n:2"], ["content/2"]),
        (["--model", "gpt-5", "--since", "1h"], ["content/0"]),
        (["--since", "2d"], ["content/0", "content/1"]),
        (["--until", "2d"], ["content/2"]),
        (["--since", "2001-01-01", "--limit", "2"], ["content/0", "content/1"]),
        (["--namespace", "other"], []),
    ],
)
def test_finds_by_facts(
    filled: str, options: list[str], labels: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["search", filled, *options, "--json"]) == (Exit.OK if labels else Exit.FOUND)
    assert found(capsys) == labels


def test_goes_on_where_it_ended(filled: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["search", filled, "--limit", "2"]) == Exit.OK
    shown = capsys.readouterr().out
    assert "content/1" in shown
    assert "the answer" not in shown
    cursor = shown.rsplit("--cursor ", 1)[1].strip()
    assert run(["search", filled, "--cursor", cursor, "--json"]) == Exit.OK
    assert found(capsys) == ["content/2"]


def test_what_cannot_be_asked_is_told(
    postgres_url: str, filled: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["search", filled, "--since", "yesterday"]) == Exit.USAGE
    assert run(["search", filled, "--label", "a*b"]) == Exit.USAGE
    assert run(["search", f"postgresql://app:hunter2@127.0.0.1:{free_port()}/x"]) == Exit.ENVIRONMENT
    assert run(["search", postgres_url + "?schema=none"]) == Exit.ENVIRONMENT
    error = capsys.readouterr().err
    assert "llmcache-fast migrate" in error
    assert "hunter2" not in error
