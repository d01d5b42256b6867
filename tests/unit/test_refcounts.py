"""Reference counts over the extension's unsafe parts: nothing is leaked, nothing is dropped twice.

`make valgrind` runs the same paths where it also sees reads and writes out of bounds.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from llmcache_fast._core import Encoded
from tests.memory.unsafe_paths import PATHS, engine, insert, refused, requests

KEY = b"k" * 32


def references(value: object) -> int:
    return sys.getrefcount(value) - 1  # its own argument


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("path", PATHS)
def test_the_unsafe_paths_run(path: str) -> None:
    PATHS[path]()


@pytest.mark.parametrize("make", [lambda: "v" * 1000, lambda: b"v" * 1000], ids=["text", "bytes"])
def test_an_entry_holds_one_reference(make: Callable[[], Any]) -> None:
    made, value = engine(), make()
    before = references(value)
    insert(made, KEY, value)
    assert references(value) == before + 1
    hit = made.get_nowait(KEY)
    assert hit is value, "the object itself, not a copy"
    assert references(value) == before + 2
    del hit
    view = made._view(KEY)
    assert references(value) == before + 2
    del view
    insert(made, KEY, "another", snap=1)
    assert references(value) == before, "replaced"
    insert(made, KEY, value, snap=2)
    made._remove(KEY)
    assert references(value) == before, "removed"
    insert(made, KEY, value)
    made._clear()
    assert references(value) == before, "cleared"
    insert(made, KEY, value)
    del made
    assert references(value) == before, "with its engine"


def test_eviction_and_refusal_give_the_reference_back() -> None:
    made = engine(64 << 10)
    values = [f"{number} " * 2000 for number in range(100)]
    before = [references(value) for value in values]
    for number, value in enumerate(values):
        insert(made, number.to_bytes(32), value)
    del value
    held = sum(now - was for now, was in zip(map(references, values), before, strict=True))
    assert held == sum(shard["entries"] for shard in made._shards()) < 100
    large = "x" * (1 << 20)
    was = references(large)
    assert insert(made, KEY, large) == "too_large"
    assert references(large) == was
    made._clear()
    assert [references(value) for value in values] == before


def test_encoded_values_hold_their_payload() -> None:
    made, payload = engine(), b"p" * 500
    before = references(payload)
    insert(made, KEY, Encoded(payload, "msgpack", "value"))
    assert references(payload) == before + 1
    assert made.get_nowait(KEY) is payload
    made._clear()
    assert references(payload) == before


@pytest.mark.parametrize("end", ["drop", "next", "send", "throw", "close", "default"])
def test_a_finished_awaitable_holds_its_value_until_it_goes(end: str) -> None:
    made, value = engine(), "v" * 1000
    if end != "default":
        insert(made, KEY, value)
    before = references(value)
    ready: Any = made.get(KEY, value)
    assert references(value) == before + 1
    kind = references(type(ready))
    try:
        if end == "next":
            next(ready)
        elif end == "send":
            ready.send(None)
        elif end == "throw":
            ready.throw(ValueError("x"))
        elif end == "close":
            ready.close()
    except (StopIteration, ValueError):
        pass
    assert references(value) == before + 1
    del ready
    assert references(value) == before
    ready = made.get(KEY, value)
    after = references(type(ready))
    assert after == kind, "nor does the type gather references"


def test_the_memo_gives_its_references_back() -> None:
    made = engine()
    texts = [f"{number} " * 1000 for number in range(20)]
    before = [references(text) for text in texts]
    request = {"messages": [{"content": text} for text in texts]}
    for _ in range(3):
        made.fingerprint(request)
    objects, _ = made._memo()
    assert objects > 0, "long strings are remembered"
    made._clear_memo()
    del request
    assert [references(text) for text in texts] == before


def test_fingerprints_leave_all_counts_as_they_were() -> None:
    made = engine()
    kept = [*requests(), *refused()]
    fields = [value for request in kept if isinstance(request, dict) for value in request.values()]
    # Small integers, None and the like are everybody's.
    watched = [value for value in (*kept, *fields) if references(value) < 50]
    assert len(watched) > 30

    def all_of_them() -> None:
        for request in kept:
            with contextlib.suppress(ValueError, TypeError):
                made.fingerprint(request)

    all_of_them()
    made._clear_memo()
    gc.collect()
    before = [references(value) for value in watched]
    for _ in range(10):
        all_of_them()
    made._clear_memo()
    gc.collect()
    assert [references(value) for value in watched] == before


def test_repetition_does_not_grow() -> None:
    def work() -> None:
        made = engine(1 << 20)
        for number in range(300):
            key = number.to_bytes(32)
            insert(made, key, f"{number} " * 50)
            made.get(key)
            made.get_nowait(key)
            made.fingerprint({"n": number, "text": f"{number} " * 200})

    work()
    gc.collect()
    tracemalloc.start()
    try:
        work()
        gc.collect()
        first = tracemalloc.get_traced_memory()[0]
        for _ in range(10):
            work()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - first
    finally:
        tracemalloc.stop()
    assert grown < 20_000, f"{grown} bytes more after ten times the same work"
