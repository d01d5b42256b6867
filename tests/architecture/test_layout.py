"""Where things live: one concept a file, a test of the same name, folders that say what they are for."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "python" / "llmcache_fast"
CORE = ROOT / "rust" / "core"
BINDING = ROOT / "rust" / "python"

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
RUST_FILES = sorted([*(CORE / "src").rglob("*.rs"), *(BINDING / "src").rglob("*.rs")])
TEST_FILES = sorted((ROOT / "tests").rglob("test_*.py"))
SOURCES = [*MODULES, *RUST_FILES, *TEST_FILES, *sorted(PACKAGE.rglob("__init__.py"))]

MAX_LINES = 450
# Files that had the second look and are longer for a reason.
LONG_FILES: dict[str, str] = {
    "python/llmcache_fast/_cache.py": "the public face: most of it is signatures and their documentation",
}

# Modules whose behaviour is tested under another name.
TESTED_ELSEWHERE: dict[str, str] = {
    "python/llmcache_fast/_recordings.py": "tests/unit/test_streams.py",
    "python/llmcache_fast/actors/ledger.py": "tests/unit/test_writers.py",
    "python/llmcache_fast/actors/pending.py": "tests/unit/test_write_behind.py",
    "python/llmcache_fast/actors/write_report.py": "tests/unit/test_writers.py",
}

# Tests in tests/unit that are about no single module.
TESTS_OF_NO_MODULE = {
    "test_sdist.py": "the package as a whole",
    "test_refcounts.py": "the extension's unsafe parts, all of them",
}

# Core files tested through what drives them.
CORE_TESTED_ELSEWHERE: dict[str, str] = {
    "lanes.rs": "rust/core/tests/fingerprint.rs",
    "lock.rs": "rust/core/tests/l1_concurrency.rs",
}

DRAWERS = {"utils", "helpers", "common", "misc", "util", "helper"}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_file_grows_beyond_a_second_look(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    if relative(path) in LONG_FILES:
        assert lines > MAX_LINES, f"{relative(path)} is short again: take it off LONG_FILES"
    else:
        assert lines <= MAX_LINES, f"{relative(path)} has {lines} lines: split it, or list it with a reason"


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_module_has_a_test_of_its_name(path: Path) -> None:
    # `_freshness` by `test_freshness.py`; of a small folder's modules one test may have the folder's name.
    folders = path.relative_to(PACKAGE).parts[:-1]
    wanted = {f"test_{name.strip('_')}.py" for name in (path.stem, *folders)}
    found = [test for test in TEST_FILES if test.name in wanted]
    if instead := TESTED_ELSEWHERE.get(relative(path)):
        assert (ROOT / instead).exists(), f"{relative(path)}: its tests at {instead} are gone"
        assert not found, f"{relative(path)} has {relative(found[0])}: no exception needed"
    else:
        assert found, f"{relative(path)}: none of {', '.join(sorted(wanted))} exists"


@pytest.mark.parametrize("path", sorted((ROOT / "tests" / "unit").rglob("test_*.py")), ids=relative)
def test_a_unit_test_has_a_module_of_its_name(path: Path) -> None:
    stem = path.stem.removeprefix("test_")
    names = {module.stem.strip("_") for module in MODULES} | {
        folder.name for folder in PACKAGE.rglob("*") if folder.is_dir()
    }
    names |= {source.stem for source in (BINDING / "src").glob("*.rs")}
    assert stem in names or path.name in TESTS_OF_NO_MODULE, f"{path.name} tests no module called {stem}"


@pytest.mark.parametrize("path", sorted((CORE / "src").rglob("*.rs")), ids=relative)
def test_a_core_file_has_a_test_of_its_name(path: Path) -> None:
    if path.stem in {"lib", "mod"}:
        return
    if instead := CORE_TESTED_ELSEWHERE.get(path.relative_to(CORE / "src").as_posix()):
        assert (ROOT / instead).exists(), f"{relative(path)}: its tests at {instead} are gone"
        return
    # `l1/shard.rs` is tested by `shard.rs`, `l1_shard.rs` or, with its folder, by `l1.rs`.
    folders = path.relative_to(CORE / "src").parts[:-1]
    names = {path.stem, "_".join((*folders, path.stem)), *folders}
    assert any((CORE / "tests" / f"{name}.rs").exists() for name in names), (
        f"rust/core/tests has none of {', '.join(sorted(names))}"
    )


@pytest.mark.parametrize(
    "folder",
    [
        path
        for top in (PACKAGE, ROOT / "tests")
        for path in [top, *sorted(top.rglob("*"))]
        if path.is_dir() and any(path.glob("*.py"))
    ],
    ids=relative,
)
def test_a_folder_says_what_belongs_there(folder: Path) -> None:
    preamble = folder / "__init__.py"
    assert preamble.exists(), f"{relative(folder)} has no __init__.py"
    assert ast.get_docstring(ast.parse(preamble.read_text())), f"{relative(preamble)} has no docstring"


@pytest.mark.parametrize("path", RUST_FILES, ids=relative)
def test_a_rust_file_says_what_it_is_for(path: Path) -> None:
    assert path.read_text().startswith("//!"), f"{relative(path)} does not begin with a //! comment"


def test_there_are_no_drawers() -> None:
    assert [relative(path) for path in SOURCES if path.stem.strip("_").lower() in DRAWERS] == []


def test_exceptions_name_files_that_exist() -> None:
    listed = [*LONG_FILES, *TESTED_ELSEWHERE, *(f"tests/unit/{name}" for name in TESTS_OF_NO_MODULE)]
    listed += [f"rust/core/src/{name}" for name in CORE_TESTED_ELSEWHERE]
    assert [name for name in listed if not (ROOT / name).exists()] == []


def test_the_picture_shows_what_is_there() -> None:
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text()
    tree = page.partition("## The tree")[2].partition("```text")[2].partition("```")[0]
    drawn: dict[str, set[str]] = {}
    top = ""
    for line in tree.splitlines():
        if not line.strip():
            continue
        name, *rest = line.split()
        if not line.startswith(" "):
            top = name
        elif name.endswith("/"):
            drawn.setdefault(f"{top}{name}", set()).update(re.findall(r"[a-z_0-9]+", " ".join(rest)))
        else:
            drawn.setdefault(top, set()).update(re.findall(r"[A-Za-z_0-9]+", line))
    missing = [
        relative(path)
        for path in [*MODULES, *RUST_FILES]
        if path.stem not in drawn.get(relative(path.parent) + "/", set())
    ]
    assert missing == [], "docs/explanation/architecture.md does not show these"
