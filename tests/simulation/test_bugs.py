"""The simulator finds every planted bug, long before it has run what it runs in CI."""

from __future__ import annotations

import pytest

from tests.simulation.bugs import BUGS
from tests.simulation.runs import run_session

SESSIONS = 1500
"""Of twelve schedules each: a fifth of what runs in CI without a bug. Most bugs take fewer than twenty."""


@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", BUGS)
def test_the_bug_is_found(name: str) -> None:
    with BUGS[name]():
        found = next((result for seed in range(SESSIONS) if (result := run_session(seed)).violation), None)

    assert found is not None, f"{name}: not found in {SESSIONS} sessions"


def test_there_are_at_least_twelve() -> None:
    assert len(BUGS) >= 12
