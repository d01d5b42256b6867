"""The import rules of pyproject.toml hold, and the linter that checks them would notice a breach."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "python" / "llmcache_fast"


def lint_imports(package_parent: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter with the project's contracts over the package found in `package_parent`."""
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--config", ROOT / "pyproject.toml", "--no-cache"],
        cwd=package_parent,
        env={**os.environ, "PYTHONPATH": str(package_parent)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_contract_is_kept() -> None:
    result = lint_imports(ROOT / "python")
    assert result.returncode == 0, result.stdout


def imported_from_the_package_itself(source: str) -> set[str]:
    """Names a module takes from `llmcache_fast`, not from a module of it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "llmcache_fast":
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name == "llmcache_fast"}
    modules = {path.stem for path in PACKAGE.glob("*.py")} | {
        path.name for path in PACKAGE.iterdir() if path.is_dir()
    }
    return found - modules - {"_core"}


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix()
)
def test_nothing_below_the_command_line_imports_the_public_face(path: Path) -> None:
    if path.relative_to(PACKAGE).parts[0] != "cli":
        assert imported_from_the_package_itself(path.read_text()) == set()


def test_an_import_of_the_public_face_is_noticed() -> None:
    assert imported_from_the_package_itself("def f():\n    from llmcache_fast import LLMCache\n") == {
        "LLMCache"
    }
    assert imported_from_the_package_itself("import llmcache_fast\n") == {"llmcache_fast"}
    assert imported_from_the_package_itself("from llmcache_fast import _core, _errors\n") == set()


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("_freshness.py", "import asyncio", "asyncio is imported by the two tiers"),
        ("_freshness.py", "from llmcache_fast import _cache", "Imports go downwards"),
        ("actors/flights.py", "from llmcache_fast import _lookup", "Imports go downwards"),
        ("tiers/disk.py", "from llmcache_fast.tiers import guarded", "Tiers are strangers"),
        ("_cache.py", "import redis", "A server's driver"),
        ("_cache.py", "import httpx", "Client SDKs"),
        ("_stats.py", "import rich", "What draws on a terminal"),
        ("semantic/embedding.py", "import numpy", "Libraries of models and arrays"),
        ("tiers/disk.py", "from llmcache_fast.semantic import embedder", "Imports go downwards"),
    ],
)
def test_a_breach_is_noticed(tmp_path: Path, module: str, line: str, contract: str) -> None:
    shutil.copytree(ROOT / "python" / "llmcache_fast", tmp_path / "llmcache_fast")
    target = tmp_path / "llmcache_fast" / module
    target.parent.mkdir(exist_ok=True)
    before = target.read_text() if target.exists() else ""
    target.write_text(f"{before}\n{line}\n")
    for imported in ("_cache.py", "_lookup.py", "tiers/guarded.py"):  # whatever of these exists not yet
        (tmp_path / "llmcache_fast" / imported).touch()
    result = lint_imports(tmp_path)
    assert result.returncode != 0
    broken = [row for row in result.stdout.splitlines() if " BROKEN" in row]
    assert any(row.startswith(contract) for row in broken), result.stdout
