"""Print what an extra of pyproject.toml asks for, one requirement a line, without building the package.

    python .ci/requirements.py dev

An extra may name others ("llmcache-fast[cli]"); they are followed. `dependencies` always come along.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
OWN_EXTRAS = re.compile(rf"^{PROJECT['name']}\[(.+)\]$")


def requirements(extra: str, seen: set[str]) -> list[str]:
    if extra in seen:
        return []
    seen.add(extra)
    found: list[str] = []
    for line in PROJECT["optional-dependencies"][extra]:
        if own := OWN_EXTRAS.match(line):
            for name in own.group(1).split(","):
                found += requirements(name.strip(), seen)
        else:
            found.append(line)
    return found


if __name__ == "__main__":
    lines = [*PROJECT["dependencies"]]
    seen: set[str] = set()
    for extra in sys.argv[1:]:
        lines += requirements(extra, seen)
    sys.stdout.write("\n".join(dict.fromkeys(lines)) + "\n")
