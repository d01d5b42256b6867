"""What has no canonical form is refused with its path; hostile requests crash nothing."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import functools
import gc
import math
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from llmcache_fast._errors import UnkeyableRequestError
from tests.properties import reference_fingerprint as reference
from tests.properties.fingerprinting import agree, kind, rust
from tests.properties.test_request import Inner, Model, Plain, Text

# --- refusals -----------------------------------------------------------------------------------------------


class Color(enum.Enum):
    RED = 1


class Anything:
    pass


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        "\ud800",
        "x" * 300 + "\udfff",
        "x" * 9000 + "\u00e9\udfff",
        Text("\ud800"),
        {"\ud800": 1},
        {1: 2},
        {None: 2},
        {("a",): 1},
        {b"a": 1},
        {"a", 1},
        {True},
        {None},
        {(1, 2)},
        {frozenset()},
        {1, "a", b"b"},
        1 + 2j,
        decimal.Decimal(1),
        dt.date(2026, 1, 1),
        Color.RED,
        Anything(),
        Anything,
        Inner,
        Model,
        Plain,
        int,
        len,
        lambda: 0,
        ...,
        NotImplemented,
        msgspec.UNSET,
        range(3),
        (i for i in range(3)),
        iter([1]),
        {}.keys(),
        {"a": 1}.values(),
        collections.deque([1]),
        object(),
        sys,
    ],
    ids=kind,
)
def test_what_has_no_canonical_form_is_refused_with_its_path(value: Any) -> None:
    with pytest.raises(reference.UnkeyableError):
        reference.fingerprint([value])
    with pytest.raises(UnkeyableRequestError) as caught:
        rust({"messages": [{}, {}, {}, {"role": "user", "content": value}]})
    assert caught.value.path.startswith("messages[3].content")
    assert "messages[3].content" in str(caught.value)
    assert len(caught.value.reason) > 10
    with pytest.raises(UnkeyableRequestError):
        rust(value)


def test_errors_show_no_text_of_the_request() -> None:
    with pytest.raises(UnkeyableRequestError) as caught:
        rust({"messages": ["my secret prompt \ud800"]})
    assert "secret" not in str(caught.value)


def test_paths_with_strange_keys_stay_readable() -> None:
    for key in ("a.b", "", "x" * 5000, "\n", "q'\"", "\u202e"):
        with pytest.raises(UnkeyableRequestError) as caught:
            rust({"a": {key: [math.nan]}})
        assert len(str(caught.value)) < 400
        assert str(caught.value).isprintable()


def test_two_keys_equal_under_normalisation_are_refused() -> None:
    for wrap in (lambda v: v, lambda v: [v], lambda v: {"tools": [{"input_schema": v}]}):
        value = wrap({"caf\u00e9": 1, "cafe\u0301": 2})
        agree(value)
        with pytest.raises(UnkeyableRequestError, match="key"):
            rust(value, nfc=True)
        with pytest.raises(UnkeyableRequestError, match="key"):
            rust(value, nfc=True, profile="anthropic.messages")


def test_two_set_items_equal_under_normalisation_are_refused() -> None:
    agree([{"caf\u00e9", "cafe\u0301"}])
    agree([{"caf\u00e9", "cafe\u0301"}], nfc=True)


def test_two_keys_that_are_the_same_text_are_refused() -> None:
    class Loner(str):
        __slots__ = ()
        __hash__ = object.__hash__

        def __eq__(self, other: object) -> bool:
            return self is other

    value = {Loner("a"): 1, Loner("a"): 2}
    agree(value)
    agree({"tools": [{"input_schema": value}]}, profile="anthropic.messages")


def nested(levels: int, leaf: object, wrap: Callable[[object], object]) -> object:
    for _ in range(levels):
        leaf = wrap(leaf)
    return leaf


@pytest.mark.parametrize(
    "wrap",
    [
        lambda v: [v],
        lambda v: (v,),
        lambda v: {"k": v},
        lambda v: Inner("r", v),
        lambda v: collections.UserDict(k=v),
    ],
)
@pytest.mark.parametrize("leaf", [None, "x", {"s"}])
def test_the_limit_of_depth(wrap: Callable[[object], object], leaf: object) -> None:
    taken = 1 if isinstance(leaf, set) else 0
    agree(nested(128 - taken, leaf, wrap))
    deep = nested(129 - taken, leaf, wrap)
    with pytest.raises(UnkeyableRequestError, match="128"):
        rust(deep)
    with pytest.raises(UnkeyableRequestError, match="128"):
        rust(nested(5000, leaf, wrap))


def test_cycles_are_refused() -> None:
    ring: list[object] = []
    ring.append(ring)
    table: dict[str, object] = {}
    table["self"] = [table]
    record = Inner("r")
    record.content = (record,)
    for value in (ring, table, record, [record]):
        with pytest.raises(UnkeyableRequestError, match="cycle"):
            rust(value)


def test_the_limit_of_values() -> None:
    agree([None] * 999_999)
    agree([None] * 1_000_000)
    half = [0] * 499_999
    agree([half, half])
    agree([half, half, 0])


def test_the_limit_of_bytes() -> None:
    part = "x" * 2**24
    assert len(rust([part] * 15)) == 32
    assert len(rust([part] * 16)) == 32
    with pytest.raises(UnkeyableRequestError, match="256 MiB"):
        rust([part] * 16 + ["x"])
    with pytest.raises(UnkeyableRequestError, match="256 MiB"):
        rust([part.encode()] * 16 + [b"x"])


def test_a_string_that_cannot_be_encoded_leaves_nothing_behind() -> None:
    good = {"a": "x" * 300}
    before = rust(good)
    for _ in range(3):
        with pytest.raises(UnkeyableRequestError):
            rust({"a": "x" * 300, "b": ["y" * 300, "\ud800"]})
        assert rust(good) == before


# --- hostile objects ----------------------------------------------------------------------------------------


class Raises:
    """Raises from everything that Python calls behind the scenes."""

    def __getattr__(self, name: str) -> object:
        raise RuntimeError("hostile")

    def __hash__(self) -> int:
        return 1

    def _raise(self, *_: object) -> Any:
        raise RuntimeError("hostile")

    __eq__ = __iter__ = __len__ = __bool__ = __repr__ = __str__ = __index__ = _raise
    __float__ = __getitem__ = __bytes__ = __buffer__ = __class_getitem__ = _raise


class RaisesAlways:
    def __getattribute__(self, name: str) -> object:
        raise RuntimeError("hostile")


class LyingClass:
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return dict


class LyingModel:
    __pydantic_fields__ = {"a": 1}  # noqa: RUF012


class HostileMapping(collections.UserDict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("hostile")


class EndlessMapping(collections.UserDict[str, Any]):
    def items(self) -> Any:
        return [("a", 1), ("a", 2)]


class WrongItems(collections.UserDict[str, Any]):
    def items(self) -> Any:
        return [1, 2, 3]


@dataclasses.dataclass
class Unset:
    a: int = dataclasses.field(init=False)


@pytest.mark.parametrize(
    "hostile", [Raises, RaisesAlways, LyingClass, LyingModel, HostileMapping, WrongItems, Unset]
)
def test_hostile_objects_are_refused(hostile: type) -> None:
    value = hostile()
    for request in (value, [value], {"a": {"b": value}}, {"stream": 1, "x": (value,)}):
        with pytest.raises(UnkeyableRequestError):
            rust(request)


def test_a_dropped_field_is_not_looked_at() -> None:
    expected = rust({"model": "m"})
    for value in (Raises(), RaisesAlways(), math.nan, "\ud800", object(), {1: 2}):
        assert rust({"model": "m", "timeout": value, "extra_headers": value}) == expected


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_no_error_passes_through(exception: type[BaseException]) -> None:
    class Interrupted(collections.UserDict[str, Any]):
        def items(self) -> Any:
            raise exception

    with pytest.raises(exception):
        rust({"a": [Interrupted()]})


class Vandal(collections.UserDict[str, Any]):
    """Changes the containers around it while it is being read."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self.act = act

    def items(self) -> Any:
        self.act()
        gc.collect()
        return {"x": "y" * 400}.items()


@pytest.mark.parametrize("act", range(7))
def test_containers_that_change_during_the_walk(act: int) -> None:
    for turn in range(4):
        items: list[Any] = []
        table: dict[str, Any] = {}
        group = {f"s{i}" * 200 for i in range(5)}
        acts: list[Callable[[], object]] = [
            items.clear,
            table.clear,
            group.clear,
            functools.partial(table.update, {f"n{i}": "z" * 500 for i in range(100)}),
            functools.partial(items.extend, range(1000)),
            functools.partial(items.__setitem__, slice(None), []),
            functools.partial(table.pop, "text", None),
        ]
        vandal = Vandal(acts[act])
        table.update({"first": vandal, "text": "t" * (300 + turn), "group": group, "list": items})
        items += ["a" * (400 + turn), vandal, "b" * 500, group]
        for request in (table, items, {"a": [items, table], "b": "c" * 300}):
            assert len(rust(request)) == 32


def test_a_walk_inside_a_walk() -> None:
    class Nested(collections.UserDict[str, Any]):
        def items(self) -> Any:
            inner = rust({"inner": ["i" * 300, {"deep": 1}]})
            return {"digest": inner.hex()}.items()

    inner = rust({"inner": ["i" * 300, {"deep": 1}]})
    expected = rust({"a": "o" * 300, "n": {"digest": inner.hex()}, "z": ["o" * 300]})
    assert rust({"a": "o" * 300, "n": Nested(), "z": ["o" * 300]}) == expected


class LongWord(str):
    __slots__ = ()


def test_containers_that_other_threads_change() -> None:
    table: dict[str, Any] = {f"k{i}": [f"{i}" * 300] for i in range(200)}
    stop = threading.Event()

    def change() -> None:
        generator = random.Random(1)
        while not stop.is_set():
            key = f"k{generator.randrange(400)}"
            table.pop(key, None)
            table[key] = [key * 200, {"x": Inner("r", key)}]
            table["big"] = LongWord("w" * 400_000)  # nothing but the table holds it while it is hashed

    threads = [threading.Thread(target=change) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(60):
            assert len(rust(table)) == 32
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_nothing_leaks_references() -> None:
    marker = object()
    text = "leak" * 200
    record = Inner("r", text)
    good = {"a": [record, text, {"b": text}], "s": {text}}
    bad = {"a": [record, text, marker]}
    rust(good)
    before = sys.getrefcount(marker), sys.getrefcount(record), sys.getrefcount(text)
    for _ in range(200):
        rust(good)
        with pytest.raises(UnkeyableRequestError):
            rust(bad)
    gc.collect()
    assert (sys.getrefcount(marker), sys.getrefcount(record), sys.getrefcount(text)) == before


# --- threads with small stacks ------------------------------------------------------------------------------

SMALL_STACK = """
import sys, threading
from llmcache_fast import UnkeyableRequestError, fingerprint

deep = 1
for level in range(126):
    deep = {"a": deep} if level % 2 else [deep]
cycle = []
cycle.append(cycle)
ends = []

def run():
    for request in ({"d": deep}, cycle, {"s": {"a", "b"}, "d": deep}):
        try:
            fingerprint(request)
        except UnkeyableRequestError:
            ends.append("refused")
        else:
            ends.append("keyed")
    ends.append(fingerprint({"messages": [{"role": "user", "content": "x" * 2000}]}).hex())

threading.stack_size(int(sys.argv[1]))
thread = threading.Thread(target=run)
thread.start()
thread.join()
print(*ends)
"""


@pytest.mark.parametrize("size", [32 << 10, 64 << 10, 96 << 10])
def test_a_small_stack_ends_in_an_error_not_in_a_crash(size: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SMALL_STACK, str(size)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    *deep, shallow = ended.stdout.split()
    assert len(deep) == 3
    assert deep[1] == "refused"
    if size <= 64 << 10:
        assert deep == ["refused"] * 3
    assert shallow == rust({"messages": [{"role": "user", "content": "x" * 2000}]}).hex()
