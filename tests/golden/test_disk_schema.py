"""Files that earlier versions of the disk tier made are opened with all that is in them.

`disk_v1.sqlite3` was made by version 1 of the schema, and so on, all of them with what `CONTENT` and `CLOCKS`
say. They are never made again: what a version wrote does not change.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from pathlib import Path

import pytest

from llmcache_fast._core import DiskStore
from llmcache_fast._entry import NEVER

GOLDEN = Path(__file__).parent
DATABASE = "cache.sqlite3"
TOP = 2**64 - 1
START = 1_700_000_000_000_000
CONTENT = {
    hashlib.sha256(b"record %d" % n).digest(): hashlib.sha256(b"envelope %d" % n).digest()
    * (1 + 40 * (n % 5))
    for n in range(20)
}
CLOCKS = {
    7: (START + 2, [(TOP, START + 1), (1, START + 1), (2, START + 2), (3, START + 2)]),
    8: (START, []),
    TOP: (START + 501, [(9, START + 501)]),
}
EPOCHS = {7: 18122288882901454864, 8: 17846424645950410048, TOP: 13124718620259828669}
RULES = {1: {}, **{n: {7: [(b"a rule of version %d" % n, START + 2)]} for n in (2, 3)}}
PARTITION = bytes(range(32))
MEMBERS = {1: [], 2: [], 3: list(CONTENT)[::2]}


def placed(version: int, folder: Path) -> Path:
    """A copy of the golden file, as the database of `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(GOLDEN / f"disk_v{version}.sqlite3", folder / DATABASE)
    return folder


def verify(store: DiskStore, version: int) -> None:
    """All that was put into the golden file is there."""
    assert store.get_many(list(CONTENT)) == list(CONTENT.values())
    for namespace, (seq, markers) in CLOCKS.items():
        ((epoch, last, raised, rules),) = store.changes([(namespace, 0, 0)], 0)
        assert (last, raised) == (seq, markers)
        assert rules == RULES[version].get(namespace, [])
        if version == 1:
            assert epoch == EPOCHS[namespace]
    assert store.members(PARTITION, None, 100)[0] == MEMBERS[version]
    assert store.check() == []


def shape(database: Path) -> dict[str, list[tuple[object, ...]]]:
    """Version, tables, columns and indexes."""
    with sqlite3.connect(database) as connection:
        rows = connection.execute("SELECT type, name FROM sqlite_master ORDER BY name").fetchall()
        found = {"marks": connection.execute("PRAGMA user_version").fetchall(), "names": rows}
        for kind, name in rows:
            if kind == "table":
                found[name] = connection.execute(f"PRAGMA table_info({name})").fetchall()
    connection.close()
    # What the default of an added column is, no row ever sees.
    return {name: [row[:4] for row in rows] for name, rows in found.items()}


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_file_of_an_earlier_version_keeps_its_content(version: int, tmp_path: Path) -> None:
    store = DiskStore(str(placed(version, tmp_path)), 1 << 20, 5.0)
    assert not store.created
    assert store.set_aside is None
    verify(store, version)
    # Opened again it is of this version.
    store.close()
    verify(DiskStore(str(tmp_path), 1 << 20, 5.0), version)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_it_becomes_what_a_new_file_is(version: int, tmp_path: Path) -> None:
    DiskStore(str(placed(version, tmp_path / "old")), 1 << 20, 5.0).close()
    DiskStore(str(tmp_path / "new"), 1 << 20, 5.0).close()
    assert shape(tmp_path / "old" / DATABASE) == shape(tmp_path / "new" / DATABASE)


def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    store = DiskStore(str(placed(1, tmp_path)), 1 << 20, 5.0)
    rule = b"a rule of seventeen"
    assert store.raise_markers(7, [1, 5], [rule], [], 0) == (EPOCHS[7], START + 3, START + 2)
    ((_, _, markers, rules),) = store.changes([(7, EPOCHS[7], START + 2)], 0)
    assert markers == [(1, START + 3), (5, START + 3)]
    assert rules == [(rule, START + 3)]
    with sqlite3.connect(tmp_path / DATABASE) as connection:
        counts = dict(connection.execute("SELECT namespace, markers FROM clocks").fetchall())
    connection.close()
    assert counts == {7: 5, 8: 0, -1: 1}
    # An older build of that version would be wrong about it from now on: it is told so by the version.
    later = [(key, b"later", 1, 1, NEVER, 1) for key in CONTENT]
    assert store.put_many(later, 0)[0] == 20
    member = (b"m" * 32, b"later", 1, 1, NEVER, 1, PARTITION)
    assert store.put_many([member], START) == (1, 0, 0)
    assert store.members(PARTITION, None, 100) == ([b"m" * 32], START)
