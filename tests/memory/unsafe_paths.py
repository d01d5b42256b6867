"""Runs every unsafe path of the extension; valgrind watches (`valgrind.sh`). Also run by a plain test.

Unsafe are: the walk over Python objects, the memo that holds them, the finished awaitable, the references
that L1 holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from llmcache_fast import _core
from llmcache_fast._core import Clock, Encoded, Engine
from llmcache_fast._entry import NEVER


@dataclasses.dataclass
class Data:
    text: str


class Struct(msgspec.Struct):
    text: str


class Sub(dict[str, Any]):
    pass


class Decoding(Engine):
    """What `LLMCache` adds to a hit."""

    def _decoded(self, value: Any, kind: Any) -> tuple[Any] | None:
        return (value.payload,) if isinstance(value, Encoded) else None

    async def _compute(self, key: bytes, request: Any, compute: Any, *rest: Any) -> Any:
        return await compute()


def engine(memory: int = 1 << 20) -> Decoding:
    made = Decoding()
    made._configure(
        memory=memory,
        namespace="default",
        profile="openai.chat",
        normalize="NFC",
        clock=Clock(),
        epoch=1,
        alone=True,
    )
    made._set_open(open=True)
    return made


def insert(made: Engine, key: bytes, value: Any, **facts: Any) -> str:
    given: dict[str, Any] = {
        "namespace": "default", "facts": (["t"], "a/b", [], b""), "created": 0,
        "fresh_until": NEVER, "stale_until": NEVER, "cost": 1, "epoch": 1, "snap": 0,
    }  # fmt: skip
    return made._insert(key, value, **(given | facts))


def cyclic() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def outcome(call: Callable[[], Any]) -> Any:
    """What it returned or raised."""
    try:
        return call()
    except Exception as error:
        return error


def requests() -> list[Any]:
    """All kinds of values, short and long, in every width of text."""
    texts = [
        "",
        "ascii",
        "\xe9" * 10,
        "\u20ac" * 100,
        "\U0001f600" * 300,
        "x" * 255,
        "x" * 256,
        "e\u0301" * 5000,
    ]
    numbers = [0, -1, 2**63 - 1, -(2**63), 2**63, -(2**64), 2**4000, 1.5, -0.0, 1e300, 5e-324]
    return [
        *({"value": value} for value in (*texts, *numbers, None, True, b"", b"x" * 255, b"x" * 5000)),
        {"value": [*texts, *numbers]},
        {"value": tuple(texts)},
        {"value": {"nested": dict(zip(texts, numbers, strict=False))}},
        {"value": {3, 1, 2}},
        {"value": frozenset(texts)},
        {"value": [Data("x"), Struct("y"), Sub(a=1), bytearray(b"z"), memoryview(b"w" * 1000)]},
        {"tools": [{"function": {"parameters": {"b": 1, "a": {"d": 1, "c": 2}}}}], "temperature": 1.0},
        {f"key {number}": number for number in range(500)},
        {"image": "data:image/png;base64," + "A" * 4000},
        # Of new objects each time: known by their content alone.
        {"value": ["".join([piece] * n) for piece in ("ab", "\u20ac") for n in (300, 5000)]},
        {"value": bytes(bytearray(5000))},
        nested(100),
        Data("the request itself"),
        b"f" * 32,
    ]


def refused() -> list[Any]:
    return [
        {"value": "\ud800"},
        {"value": "\ud800" * 1000},
        {"value": float("nan")},
        {"value": float("inf")},
        {"value": object()},
        {"value": {1: "a number for a key"}},
        {"value": {"\udfff": 1}},
        {"value": {(1, 2), "unsortable", 3.5, None, object()}},
        {"value": cyclic()},
        nested(5000),
        b"short",
    ]


def fingerprints() -> None:
    made = engine()
    for _ in range(3):  # cold and warm memo
        for request in requests():
            with contextlib.suppress(ValueError):
                made.fingerprint(request)
                made._explain(request) if isinstance(request, dict) else None
                for profile in ("generic", "openai.responses", "anthropic.messages"):
                    _core.fingerprint(request, profile=profile, variant="v")
        for request in refused():
            refusal = outcome(partial(made.fingerprint, request))
            assert isinstance(refusal, ValueError | TypeError), type(request)
            assert str(refusal)
    for number in range(200):
        made.fingerprint({"value": f"{number} " * 2000})
    made._clear_memo()
    assert made._memo() == (0, 0)


def mutation() -> None:
    """Lists and dicts that other threads change while they are walked."""
    made = engine()
    items: list[Any] = [{"n": n} for n in range(50)]
    fields: dict[str, Any] = {str(n): "x" * n * 20 for n in range(50)}
    done = threading.Event()

    def change() -> None:
        number = 0
        while not done.is_set():
            items.append({"n": number})
            items.pop(0)
            fields[str(number % 80)] = "y" * 300
            fields.pop(str((number * 7) % 80), None)
            number += 1

    thread = threading.Thread(target=change)
    thread.start()
    for _ in range(200):
        with contextlib.suppress(ValueError, RuntimeError):
            made.fingerprint({"items": items, "fields": fields})
    done.set()
    thread.join()


def awaitables() -> None:
    made = engine()
    key, value = b"k" * 32, "value"
    insert(made, key, value)
    insert(made, b"t" * 32, Encoded(b"payload", "msgpack", "value"))

    def ready() -> Any:
        return made.get(key)

    async def never() -> str:
        raise AssertionError

    async def use() -> None:
        assert await ready() == value
        assert await made.get(b"t" * 32) == b"payload"
        assert await made.get_or_compute(key, never) == value
        assert await asyncio.gather(*(ready() for _ in range(10))) == [value] * 10
        assert await made.get(b"n" * 32, (1, 2)) == (1, 2)

    asyncio.run(use())
    ends: list[Callable[[Any], Any]] = [next, lambda it: it.send(None), lambda it: next(iter(it))]
    for end in ends:
        stop = outcome(partial(end, ready()))
        assert isinstance(stop, StopIteration)
        assert stop.value == value
    for raised in ((ValueError("x"),), (ValueError,), (ValueError, "x"), (ValueError, None, None)):
        assert isinstance(outcome(partial(ready().throw, *raised)), ValueError)
    for nonsense in ((), (5,)):
        with contextlib.suppress(TypeError):
            ready().throw(*nonsense)
    assert ready().close() is None
    dropped = engine()
    insert(dropped, key, "x" * 1000)
    last: Any = dropped.get(key)
    del dropped
    assert next(iter([last])) is last
    last.close()


def memory() -> None:
    made = engine(64 << 10)
    for number in range(2000):
        key = number.to_bytes(32)
        insert(made, key, ("x" if number % 2 else b"x") * (number % 900) or "e", cost=number)
        made.get_nowait(key)
        if number % 3 == 0:
            made._remove(key)
        if number % 5 == 0:
            insert(made, key, Encoded(b"y" * 50, "json", "value"), snap=number)
            made._view(key)
            made._peek(key)
        if number % 7 == 0:
            made._expire(key)
        if number % 100 == 0:
            made._raise(made._namespace_id("default"), made._named_targets("default", tags=["t"]))
    made._clear()
    assert sum(shard["entries"] for shard in made._shards()) == 0


def fork() -> None:
    made = engine()
    insert(made, b"k" * 32, "parent's")
    child = os.fork()
    if child == 0:
        made.fingerprint({"value": "x" * 1000})
        os._exit(0 if made.get_nowait(b"k" * 32) == "parent's" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert made.get_nowait(b"k" * 32) == "parent's"


PATHS: dict[str, Callable[[], None]] = {
    path.__name__: path for path in (fingerprints, mutation, awaitables, memory, fork)
}


if __name__ == "__main__":
    for name in sys.argv[1:] or PATHS:
        PATHS[name]()
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()
