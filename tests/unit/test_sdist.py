"""The source distribution builds a wheel that works in a fresh environment, with only what it declares."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

PROGRAM = """
import anyio
import llmcache_fast
from llmcache_fast import LLMCache

calls = 0


async def compute() -> str:
    global calls
    calls += 1
    return "an answer"


async def main() -> None:
    request = {"model": "m", "messages": [{"role": "user", "content": "a question"}]}
    assert len(llmcache_fast.fingerprint(request)) == 32
    async with LLMCache() as cache:
        assert await cache.get_or_compute(request, compute) == "an answer"
        assert await cache.get_or_compute(request, compute) == "an answer"
    assert calls == 1


anyio.run(main)
print(llmcache_fast.__file__)
"""


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    result = subprocess.run(
        command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def copy_requirements(name: str, site: Path, seen: set[str]) -> None:
    """Copy what a distribution requires (extras left out) into `site`: no index is asked for anything."""
    for line in importlib.metadata.requires(name) or []:
        required = re.match(r"[A-Za-z0-9._-]+", line)
        if required is None or "extra ==" in line or required.group() in seen:
            continue
        seen.add(required.group())
        try:
            distribution = importlib.metadata.distribution(required.group())
        except importlib.metadata.PackageNotFoundError:  # for another Python or system
            continue
        for file in distribution.files or []:
            if file.parts[0] != ".." and "__pycache__" not in file.parts:
                target = site / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(str(file.locate()), target)
        copy_requirements(required.group(), site, seen)


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    run(BIN / "maturin", "sdist", "--out", out, cwd=ROOT)
    (archive,) = out.glob("*.tar.gz")
    return archive


def test_it_holds_sources_and_licence_and_no_build_products(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"Cargo.lock", "Cargo.toml", "LICENSE", "README.md", "pyproject.toml"} <= names
    assert {"rust/core/src/lib.rs", "rust/python/src/lib.rs"} <= names
    assert {"python/llmcache_fast/__init__.py", "python/llmcache_fast/py.typed"} <= names
    assert [name for name in names if name.endswith((".so", ".pyc")) or "target/" in name] == []


@pytest.mark.timeout(1200)
def test_its_wheel_works_in_a_fresh_environment(sdist: Path, tmp_path: Path) -> None:
    # Same code as a release with less optimisation, in a folder kept between runs: seconds, not minutes.
    # The locked versions are those `make` has already fetched.
    run(
        *(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation"),
        *("--wheel-dir", tmp_path, sdist),
        cwd=tmp_path,
        PATH=f"{BIN}{os.pathsep}{os.environ['PATH']}",
        MATURIN_PEP517_ARGS="--locked --offline",
        CARGO_TARGET_DIR=str(ROOT / "target" / "sdist"),
        CARGO_PROFILE_RELEASE_LTO="off",
        CARGO_PROFILE_RELEASE_CODEGEN_UNITS="16",
        CARGO_PROFILE_RELEASE_OPT_LEVEL="1",
    )
    (wheel,) = tmp_path.glob("*.whl")
    assert f"-cp{sys.version_info.major}{sys.version_info.minor}-" in wheel.name

    fresh = tmp_path / "venv"
    venv.create(fresh, with_pip=True, symlinks=True)
    python = fresh / "bin" / "python"
    run(python, "-m", "pip", "install", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    (site,) = fresh.glob("lib/python3.*/site-packages")
    copy_requirements("llmcache-fast", site, set())
    run(python, "-m", "pip", "check", cwd=tmp_path)
    imported = run(python, "-c", PROGRAM, cwd=tmp_path, PYTHONPATH="")
    assert Path(imported.strip()).is_relative_to(fresh)
