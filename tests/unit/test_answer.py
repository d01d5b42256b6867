"""Answers: what each caller makes of a landing."""

from __future__ import annotations

import hashlib

import pytest

from llmcache_fast import UnstorableValueError
from llmcache_fast._answer import Answer, Landing, entry_of
from llmcache_fast._core import Clock, Engine
from llmcache_fast._entry import NEVER, Entry, Facts, pack_facts, stored_form
from llmcache_fast._usage import Usage

KEY = hashlib.sha256(b"key").digest()
FACTS = Facts(tags=("t",), model="m", usage=Usage(3, 4))
ENTRY = Entry(KEY, "default", "msgpack", b"\x91\x01", FACTS, 1_000_000, NEVER, NEVER, 1, 0, 2_500_000)


def test_each_caller_has_a_copy() -> None:
    landing = Landing(ENTRY, None, "hit", "disk")
    one, other = landing.copy(None), landing.copy(list[int])
    assert one == other == [1]
    assert one is not other
    with pytest.raises(UnstorableValueError):
        landing.copy(str)


def test_what_could_not_be_encoded_is_handed_on() -> None:
    value = object()
    landing = Landing(None, value, "miss", None)
    assert landing.copy(None) is value
    result = Answer(landing, "joined", superseded=True).result(KEY, None, 0)
    assert (result.value, result.status, result.superseded, result.tier) == (value, "joined", True, None)


def test_a_result_has_age_and_saving() -> None:
    landing = Landing(ENTRY, None, "hit", "disk")
    result = Answer(landing, "hit").result(KEY, None, 3_500_000)
    assert (result.age, result.saved, result.tier, result.tags) == (2.5, 2.5, "disk", ("t",))
    assert (result.model, result.usage) == ("m", Usage(3, 4))
    assert Answer(landing, "miss").result(KEY, None, 3_500_000).saved == 0.0
    assert Answer(landing, "hit").result(KEY, None, 0).age == 0.0, (
        "a clock that went back makes no negative age"
    )


def test_memory_gives_the_entry_back() -> None:
    engine = Engine()
    engine._configure(
        memory=1 << 20, namespace="default", profile="generic", normalize=None, clock=Clock(), epoch=1,
        alone=True,
    )  # fmt: skip
    engine._set_open(open=True)
    assert engine._insert(
        KEY, stored_form(ENTRY), namespace="default",
        facts=(["t"], None, [], pack_facts(FACTS)),
        created=ENTRY.created, fresh_until=NEVER, stale_until=NEVER, cost=ENTRY.cost, epoch=1, snap=0,
    ) == "stored"  # fmt: skip
    view = engine._view(KEY)
    assert view is not None
    assert entry_of(view, KEY, "default") == ENTRY
