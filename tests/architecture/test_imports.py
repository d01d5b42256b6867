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


def test_nothing_inside_asks_the_package_for_its_public_names() -> None:
    """It would import all of the package; the layers do not see it (`ignore_imports`)."""
    package = ROOT / "python" / "llmcache_fast"
    inside = [path for path in package.rglob("*.py") if path != package / "__init__.py"]
    inside = [path for path in inside if path.relative_to(package).parts[0] not in {"cli", "integrations"}]
    found = []
    for path in inside:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "llmcache_fast":
                found += [f"{path.name}: {name.name}" for name in node.names if not name.name.startswith("_")]
            elif isinstance(node, ast.Import):
                found += [f"{path.name}: {name.name}" for name in node.names if name.name == "llmcache_fast"]
    assert found == []
