"""What the commands share: exit codes, and output for people or, with `--json`, for programs."""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import msgspec
from rich.console import Console
from rich.table import Table


class Exit(enum.IntEnum):
    """Exit codes; also in `--help`."""

    OK = 0
    FOUND = 1
    """The command worked and its answer is no: a miss, a problem found."""
    USAGE = 2
    """The command line or an input file is wrong."""
    ENVIRONMENT = 3
    """Something that is needed is missing or cannot be reached."""
    UNREADABLE = 4
    """What is there cannot be read with the keys that were given, so the answer is not known."""


CODES = (
    "Exit codes: 0 done; 1 a miss, or a problem was found; 2 wrong arguments or input; "
    "3 something needed is missing or cannot be reached; 4 what is there cannot be read with the keys given."
)


class CommandError(Exception):
    """Ends a command with a message and an exit code."""

    def __init__(self, code: Exit, message: str) -> None:
        super().__init__(message)
        self.code = code


def stop(code: Exit, message: str) -> NoReturn:
    """End the command with a message on standard error."""
    raise CommandError(code, message)


def fail(code: Exit, message: str, *, as_json: bool) -> Exit:
    """Tell an error: a line on standard error, or with `--json` the one document on standard output."""
    if as_json:
        write_json({"error": {"code": int(code), "message": message}})
    else:
        sys.stderr.write(f"llmcache-fast: {message}\n")
    return code


def write_json(value: Any) -> None:
    """One JSON document on standard output."""
    text = msgspec.json.format(msgspec.json.encode(value, order="deterministic"), indent=2).decode()
    sys.stdout.write(text + "\n")


def console() -> Console:
    """The terminal, or plain text where standard output is none."""
    return Console(highlight=False, soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table; a column whose heading ends in a blank is right-aligned."""
    made = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for column in columns:
        made.add_column(column.rstrip(), justify="right" if column.endswith(" ") else "left", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def count(number: int) -> str:
    """`12,345`."""
    return f"{number:,}"


def size(number: int) -> str:
    """A number of bytes with a binary unit."""
    value = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def duration(seconds: float) -> str:
    """`5.1 us`, `0.42 ms`, `310 ms`, `1.2 s`."""
    if seconds < 1e-4:
        return f"{seconds * 1e6:.1f} us"
    if seconds < 0.01:
        return f"{seconds * 1e3:.2f} ms"
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    return f"{seconds:.1f} s"
