"""One call's way to a semantic hit: nothing is done twice, and nothing before it is asked for."""

from __future__ import annotations

from typing import Any, cast

import pytest

from llmcache_fast._answer import Landing
from llmcache_fast._core import Question
from llmcache_fast._entry import NEVER, Entry, Facet, Facts, SemanticMatch
from llmcache_fast._inquiry import Inquiry
from llmcache_fast._options import CallOptions
from llmcache_fast._questions import Asked, Subject
from llmcache_fast._semantics import Nearest, Semantics

OPTIONS = CallOptions(ttl=1, stale_while_revalidate=0, stale_if_error=0)
VECTOR = bytes(32)
FACET = Facet(bytes(32), bytes(16), "question", b"")
ENTRY = Entry(bytes(32), "default", "text", "answer", Facts(semantic=FACET), 0, NEVER, NEVER, 1, 1, 0)


def nearest(*, served: bool, check: bool) -> Nearest:
    match = SemanticMatch(
        served=served,
        stage="accepted" if served else "budget",
        cosine=0.9,
        score=0.8,
        fingerprint=ENTRY.key,
        namespace="default",
        partition=bytes(32),
        pair=bytes(32),
    )
    return Nearest(match, ENTRY, "memory", check)


class Recorded:
    """Semantics that answer as told and write down what they are asked."""

    def __init__(
        self, found: Nearest | None, *, asks: bool = True, knows: bool = False, waits: bool = False
    ) -> None:
        self.found = found
        self.knows = knows
        self.asks = asks
        self.waits = waits
        self.calls: list[str] = []

    def asked(self, _: Subject) -> Asked | None:
        self.calls.append("asked")
        return Asked("text", bytes(32), Question("text"), bytes(32)) if self.asks else None

    def known(self, _: Asked) -> bytes | None:
        self.calls.append("known")
        return VECTOR if self.knows else None

    async def vector(self, _: Asked) -> bytes | None:
        self.calls.append("vector")
        return VECTOR

    def facet(self, _: Asked, vector: bytes) -> Facet:
        assert vector == VECTOR
        return FACET

    async def find(self, *_: Any) -> Nearest | None:
        self.calls.append("find")
        return self.found

    def compare(self, *_: Any) -> None:
        self.calls.append("compare")

    def abandon(self, *_: Any) -> None:
        self.calls.append("abandon")

    def failed(self, *_: Any) -> None:
        self.calls.append("failed")


def inquiry(semantics: Recorded) -> Inquiry:
    subject = Subject(bytes(32), {}, "default", None, None, OPTIONS)
    return Inquiry(cast("Semantics", semantics), subject)


async def test_a_served_match_is_a_landing() -> None:
    semantics = Recorded(nearest(served=True, check=True))
    one = inquiry(semantics)
    assert semantics.calls == []
    assert await one.facet() is FACET
    landing = await one.find(lambda _: True)
    assert landing is not None
    assert (landing.status, landing.entry, landing.tier) == ("semantic", ENTRY, "memory")
    assert landing.semantic is not None
    assert one.check
    assert semantics.calls == ["asked", "vector", "find"]
    one.abandon()
    assert semantics.calls[-1] == "abandon"


@pytest.mark.parametrize("check", [False, True])
async def test_what_was_computed_is_compared_if_it_is_to_be(check: bool) -> None:
    semantics = Recorded(nearest(served=False, check=check))
    one = inquiry(semantics)
    assert await one.find(lambda _: True) is None
    computed = one.computed(Landing(ENTRY, None, "miss", None))
    assert computed.semantic is not None
    assert not computed.semantic.served
    assert ("compare" in semantics.calls) == check
    assert "abandon" not in semantics.calls


@pytest.mark.parametrize("landing", [Landing(ENTRY, None, "stale", "disk"), Landing(None, 1, "miss", None)])
async def test_what_is_no_fresh_answer_is_not_compared(landing: Landing) -> None:
    semantics = Recorded(nearest(served=False, check=True))
    one = inquiry(semantics)
    await one.find(lambda _: True)
    one.computed(landing)
    assert semantics.calls[-1] == "abandon"
    assert "compare" not in semantics.calls


async def test_what_was_not_to_be_checked_is_not_given_up() -> None:
    semantics = Recorded(nearest(served=True, check=False))
    one = inquiry(semantics)
    await one.find(lambda _: True)
    one.abandon()
    assert "abandon" not in semantics.calls


async def test_a_request_without_a_question_is_asked_once() -> None:
    semantics = Recorded(None, asks=False)
    one = inquiry(semantics)
    assert await one.facet() is None
    assert await one.find(lambda _: True) is None
    landing = Landing(ENTRY, None, "miss", None)
    assert one.computed(landing) is landing
    assert not one.check
    one.abandon()
    assert semantics.calls == ["asked"]


async def test_what_is_known_needs_no_flight_unless_it_is_checked() -> None:
    for check in (False, True):
        semantics = Recorded(nearest(served=True, check=check), knows=True)
        one = inquiry(semantics)
        at_once = await one.find_at_once(lambda _: True)
        assert (at_once is None) == check
        later = await one.find(lambda _: True)
        assert later is not None
        assert semantics.calls == ["asked", "known", "find"]


async def test_what_has_to_be_waited_for_is_left_to_the_flight() -> None:
    semantics = Recorded(nearest(served=True, check=False))
    one = inquiry(semantics)
    assert await one.find_at_once(lambda _: True) is None
    assert await one.find(lambda _: True) is not None
    assert semantics.calls == ["asked", "known", "vector", "find"]
    semantics = Recorded(nearest(served=True, check=False), knows=True, waits=True)
    one = inquiry(semantics)
    assert await one.find_at_once(lambda _: True) is None
    assert semantics.calls == []


async def test_a_request_that_cannot_be_taken_apart_is_reported_once() -> None:
    class Broken(Recorded):
        def asked(self, subject: Subject) -> Asked | None:
            super().asked(subject)
            raise ValueError("what the caller's own function raised")

    semantics = Broken(nearest(served=True, check=False))
    one = inquiry(semantics)
    assert await one.find_at_once(lambda _: True) is None
    assert await one.facet() is None
    assert await one.find(lambda _: True) is None
    assert semantics.calls == ["asked", "asked", "failed"]
