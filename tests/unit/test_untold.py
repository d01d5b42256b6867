"""What waits for an authority, against an engine that only remembers what it was told to hide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from llmcache_fast import _untold
from llmcache_fast._knowledge import Known
from llmcache_fast._untold import Untold


class Hiding:
    """What the engine hides, and the markers it has."""

    def __init__(self) -> None:
        self.hidden: set[int | str] = set()
        self.markers: dict[int | str, int] = {}

    def _defer(self, space: int, targets: Sequence[int], rules: Sequence[str] = ()) -> None:
        assert not self.hidden.intersection([*targets, *rules]), "each is hidden once"
        self.hidden.update(targets, rules)

    def _stamp(self, space: int) -> tuple[int, int]:
        return 7, 0

    def _deliver(
        self, space: int, targets: Sequence[int], rules: Sequence[str], epoch: int, seq: int
    ) -> None:
        assert self.hidden.issuperset([*targets, *rules])
        self.hidden.difference_update(targets, rules)
        self.markers.update(dict.fromkeys([*targets, *rules], seq))


@pytest.fixture
def engine() -> Any:
    return Hiding()


SPACE = 99


@pytest.fixture
def known() -> Known:
    return Known("n", SPACE, SPACE, epoch=7)


def test_what_is_told_is_shown_again_with_its_seq(engine: Any, known: Known) -> None:
    waiting = Untold()
    waiting.add(engine, known, [1, 2], ["a/*"])
    assert engine.hidden == {1, 2, "a/*"}
    targets, patterns = waiting.take(10)
    assert (sorted(targets), patterns, len(waiting)) == ([1, 2], ["a/*"], 0)
    waiting.told(engine, known, 50)
    assert engine.hidden == set()
    assert engine.markers == {1: 50, 2: 50, "a/*": 50}


def test_what_could_not_be_told_waits_and_is_hidden(engine: Any, known: Known) -> None:
    waiting = Untold()
    waiting.add(engine, known, [1, 2], [])
    waiting.take(1)
    waiting.failed()
    assert (len(waiting), engine.hidden) == (2, {1, 2})


def test_what_is_invalidated_again_while_it_is_told_is_told_again(engine: Any, known: Known) -> None:
    """The authority may have raised the marker before the second time."""
    waiting = Untold()
    waiting.add(engine, known, [1, 2], ["a/*"])
    waiting.take(10)
    waiting.add(engine, known, [2], ["a/*"])
    waiting.told(engine, known, 50)
    assert engine.hidden == {2, "a/*"}
    assert waiting.take(10) == ([2], ["a/*"])
    waiting.told(engine, known, 60)
    assert engine.hidden == set()


def test_too_much_becomes_the_whole_namespace(
    engine: Any, known: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_untold, "MAX_DEFERRED", 5)
    waiting = Untold()
    waiting.add(engine, known, range(5), [])
    waiting.add(engine, known, [7], ["a/*"])
    assert engine.hidden == {SPACE}
    waiting.add(engine, known, range(10, 20), [])
    assert SPACE in engine.hidden
    targets, patterns = waiting.take(100)
    assert SPACE in targets
    assert not patterns
    waiting.told(engine, known, 70)
    assert engine.hidden == set()
