"""Every Python block of README, tutorial and how-to pages runs, in the order of its page.

A block marked `no-run` after the language (```` ```python no-run ````) is only compiled. The blocks of one
page are one program: later blocks see the names of earlier ones. `await`, `async with` and `async for` may be
at the top level of a block, as in a notebook. Each page runs in an empty folder of its own.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import types
from pathlib import Path
from typing import NamedTuple

import anyio
import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs" / "tutorial").rglob("*.md")),
    *sorted((ROOT / "docs" / "how-to").rglob("*.md")),
]
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)``` *$", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    source: str
    line: int
    runs: bool


def blocks(text: str) -> list[Block]:
    """The Python blocks of a page, with the line of the page each begins at."""
    found = []
    for match in FENCE.finditer(text):
        language, *marks = match["info"].split() or [""]
        if language not in {"python", "py"}:
            continue
        indent = len(match["indent"])
        source = "".join(line[indent:] or "\n" for line in match["body"].splitlines(keepends=True))
        found.append(Block(source, text.count("\n", 0, match.start("body")), "no-run" not in marks))
    return found


async def execute(page: Path, found: list[Block], module: types.ModuleType) -> None:
    for block in found:
        # Blank lines in front: a traceback then names the line of the page.
        code = compile(
            "\n" * block.line + block.source,
            str(page),
            "exec",
            flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
            dont_inherit=True,
        )
        if not block.runs:
            continue
        outcome = eval(code, module.__dict__)
        if inspect.isawaitable(outcome):
            await outcome


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = blocks(page.read_text())
    if page.name == "README.md":
        assert any(block.runs for block in found), "README.md shows no example that runs"
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("__main__")  # so that `if __name__ == "__main__":` runs
    monkeypatch.setitem(sys.modules, "__main__", module)
    if any("anyio.run(" in block.source or "asyncio.run(" in block.source for block in found if block.runs):
        # A page of whole programs: it starts its own event loop.
        for block in found:
            code = compile("\n" * block.line + block.source, str(page), "exec", dont_inherit=True)
            if block.runs:
                exec(code, module.__dict__)
    else:
        anyio.run(execute, page, found, module)


def test_blocks_are_found_as_written() -> None:
    page = "a\n```python\nx = 1\n```\n\n1. b\n\n    ```python no-run\n    if x:\n\n        y\n    ```\n"
    page += "```sh\nls\n```\n"
    assert blocks(page) == [Block("x = 1\n", 2, True), Block("if x:\n\n    y\n", 8, False)]


def test_a_wrong_example_fails_and_names_its_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    text = "# Title\n\n```python\nx = 1\n```\n\n```python\nawait missing()\n```\n"
    with pytest.raises(NameError) as failure:
        anyio.run(execute, page, blocks(text), types.ModuleType("page"))
    last = failure.traceback[-1]
    assert (str(last.path), last.lineno + 1) == (str(page), 8)
