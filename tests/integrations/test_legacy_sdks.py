"""The SDKs of the last generation, on httpx: the same tests in an environment of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUITES = ["test_openai.py", "test_anthropic.py", "test_clients.py"]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_openai_2_and_anthropic_1(tmp_path: Path) -> None:
    packages = ["openai<3", "anthropic<2", "httpx<1", "httpx2", "anyio", "trio", "msgspec", "hypothesis"]
    packages += ["starlette", "uvicorn", "typer", "rich", "pytest", "pytest-timeout"]
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path)], check=True)
    python = str(tmp_path / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
    found = subprocess.run(
        [python, "-c", "import openai, anthropic; print(openai.__version__, anthropic.__version__)"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert [version.split(".")[0] for version in found.stdout.split()] == ["2", "1"]
    suites = [str(ROOT / "tests" / "integrations" / name) for name in SUITES]
    ran = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *suites],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "python")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-4000:]
