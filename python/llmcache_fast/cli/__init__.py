"""The command `llmcache-fast`: one file per command, and `upstream/` for the server behind the demo.

What belongs here: arguments, terminal output, exit codes. What does not: logic that a program would want
too; a command is a thin caller of the package.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> int:
    """Run the command line; returns the exit code. Without its extra: one line that says what to install."""
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ModuleNotFoundError as missing:
        sys.stderr.write(f"llmcache-fast needs {missing.name}: pip install 'llmcache-fast[cli]'\n")
        return 3
    from llmcache_fast.cli.commands import run

    return run()
