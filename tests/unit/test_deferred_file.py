"""The bytes of a file of deferred invalidations: golden, cut short, damaged, hostile."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcache_fast.actors.deferred import Deferral
from tests.golden.make_deferred_log import golden
from tests.unit.test_deferred import RULE, SPACE, files_in, gone, log_in, owed_in

pytestmark = pytest.mark.anyio

GOLDEN = Path(__file__).parents[1] / "golden" / "deferred_v1.log"


async def test_the_format_is_that_of_the_golden_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmcache_fast.actors.deferred_file.secrets.token_hex", lambda _size: "5a" * 32)
    log = log_in(tmp_path)
    await log.open()
    await log.add("shop", [1, 2**64 - 1], [RULE])
    await log.add("support-bot", [3])
    await log.delivered("shop", [1], through=log.begin())
    await gone(log)
    monkeypatch.undo()
    (file,) = files_in(tmp_path)
    assert file.read_bytes() == GOLDEN.read_bytes() == golden()
    assert file.stat().st_mode & 0o777 == 0o600
    assert await owed_in(tmp_path) == {
        Deferral("shop", (2**64 - 1,), (RULE,)),
        Deferral("support-bot", (3,)),
    }


async def test_the_end_of_a_file_that_was_cut_short_is_ignored(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    await log.open()
    await log.add("shop", [1])
    (file,) = files_in(tmp_path)
    sound = file.stat().st_size
    await log.add("shop", [2])
    await gone(log)
    whole = file.read_bytes()
    for size in range(len(whole)):
        folder = tmp_path / str(size)
        folder.mkdir()
        (folder / file.name).write_bytes(whole[:size])
        found = await owed_in(folder)
        assert found == ({Deferral("shop", (1,))} if size >= sound else set())


async def test_for_a_damaged_line_the_namespaces_of_its_file_are_owed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = log_in(tmp_path)
    await log.open()
    for number in range(3):
        await log.add("shop", [number])
    await gone(log)
    (file,) = files_in(tmp_path)
    lines = file.read_bytes().split(b"\n")
    lines[2] = lines[2][:40] + b"ABCD" + lines[2][44:]
    file.write_bytes(b"\n".join(lines))
    log = log_in(tmp_path)
    assert await log.open() == [Deferral("shop", (SPACE,))]
    assert log.statistics().damaged == 1
    assert "damaged" in caplog.text
    await log.aclose()


@given(st.binary(max_size=300), st.integers(0, 900), st.binary(max_size=40))
def test_hostile_files_raise_nothing(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, at: int, cut: bytes
) -> None:
    folder = tmp_path_factory.mktemp("hostile")
    whole = GOLDEN.read_bytes()
    name = "5a" * 32 + ".log"
    for data in (junk, whole[:at] + junk, whole[:at] + cut + whole[at + len(cut) :], whole + junk + b"\n"):
        (folder / name).write_bytes(data)
        for deferral in anyio.run(owed_in, folder):
            assert all(0 <= target < 2**64 for target in deferral.targets)
        for left in folder.iterdir():
            left.unlink()


async def test_symbolic_links_and_strange_names_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("kept")
    (tmp_path / ("00" * 32 + ".log")).symlink_to(tmp_path / "notes.txt")
    assert await owed_in(tmp_path) == set()
    assert (tmp_path / "notes.txt").read_text() == "kept"
