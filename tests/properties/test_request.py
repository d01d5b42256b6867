"""What counts as what: subclasses, records, mappings of other kinds."""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec
import pydantic
import pytest

from tests.properties import reference_fingerprint as reference
from tests.properties.fingerprinting import agree, kind, rust


class Text(str):
    __slots__ = ()

    def encode(self, *_: Any) -> bytes:
        raise AssertionError("not to be called")

    __str__ = __hash__ = isascii = encode  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise AssertionError("not to be called")


class Number(int):
    def __index__(self) -> int:
        return 7

    __int__ = bit_length = __abs__ = to_bytes = __index__  # type: ignore[assignment]


class Real(float):
    def __float__(self) -> float:
        return 7.0

    is_integer = as_integer_ratio = __float__  # type: ignore[assignment]


class Blob(bytes):
    def __bytes__(self) -> bytes:
        raise AssertionError("not to be called")

    __len__ = __iter__ = __bytes__  # type: ignore[assignment]


class Items(list[Any]):
    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("not to be called")

    __len__ = __getitem__ = __iter__  # type: ignore[assignment]


class Pair(tuple[Any, ...]):
    __slots__ = ()

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("not to be called")

    __len__ = __getitem__ = __iter__  # type: ignore[assignment]


class Table(dict[Any, Any]):
    def items(self) -> Any:
        raise AssertionError("not to be called")

    __iter__ = keys = values = __len__ = __getitem__ = copy = items  # type: ignore[assignment]


class Bag(set[Any]):
    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("not to be called")

    __len__ = __iter__  # type: ignore[assignment]


class Word(enum.StrEnum):
    AUTO = "auto"


class Level(enum.IntEnum):
    ONE = 1


class Point(NamedTuple):
    x: int
    y: int


@pytest.mark.parametrize(
    ("special", "plain"),
    [
        (Text("h\u00e9llo"), "h\u00e9llo"),
        (Text("h\u00e9llo" * 2000), "h\u00e9llo" * 2000),
        (Number(5), 5),
        (Number(-(2**80)), -(2**80)),
        (Real(0.5), 0.5),
        (Real(3.0), 3),
        (Blob(b"abc"), b"abc"),
        (Blob(b"abc" * 200), b"abc" * 200),
        (Items([1, [2]]), [1, [2]]),
        (Pair((1, 2)), [1, 2]),
        (Table({"b": 1, "a": 2}), {"a": 2, "b": 1}),
        (Bag({"x", "y"}), {"y", "x"}),
        (frozenset({"x"}), {"x"}),
        (bytearray(b"abc" * 100), b"abc" * 100),
        (memoryview(b"abcdef")[::2], b"ace"),
        (memoryview(b"abcdefgh").cast("I"), b"abcdefgh"),
        (Word.AUTO, "auto"),
        (Level.ONE, 1),
        (Point(1, 2), [1, 2]),
        ((1, (2,)), [1, [2]]),
        (collections.OrderedDict(b=1, a=2), {"a": 2, "b": 1}),
        (collections.defaultdict(int, a=1), {"a": 1}),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (types.MappingProxyType({"b": 1, "a": 2}), {"a": 2, "b": 1}),
        (collections.UserDict(a=1), {"a": 1}),
        (collections.ChainMap({"a": 1}, {"b": 2}), {"a": 1, "b": 2}),
    ],
    ids=kind,
)
def test_subclasses_and_kin_count_as_the_base_type(special: object, plain: object) -> None:
    assert rust([special]) == rust([plain]) == reference.fingerprint([plain])
    assert rust({"deep": [{"x": special}]}) == rust({"deep": [{"x": plain}]})


def test_keys_of_a_str_subclass() -> None:
    class Key(str):
        __slots__ = ()

    assert rust({Key("b"): 1, "a": 2}) == rust({"a": 2, "b": 1})
    assert rust({Word.AUTO: 1}) == rust({"auto": 1})


@dataclasses.dataclass
class Inner:
    role: str
    content: object = None


@dataclasses.dataclass(frozen=True, slots=True)
class Outer:
    model: str
    inner: Inner
    hidden: dataclasses.InitVar[int] = 0
    late: int = dataclasses.field(default=3, init=False)


class Plain(msgspec.Struct):
    model: str
    n: int | msgspec.UnsetType = msgspec.UNSET


class Tagged(msgspec.Struct, tag="t", tag_field="kind", rename="camel"):
    some_field: int = 1


class Omitting(msgspec.Struct, omit_defaults=True):
    a: int = 1


class ArrayLike(msgspec.Struct, array_like=True):
    b: int
    a: int


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    model: str
    text: str = pydantic.Field(default="d", alias="Text")
    _private: int = 1

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def computed(self) -> int:
        raise AssertionError("not a field")


class Remembering(pydantic.BaseModel):
    a: int = 1

    @functools.cached_property
    def doubled(self) -> int:
        return 2 * self.a


def test_a_cached_property_is_not_a_field() -> None:
    model = Remembering()
    before = rust(model)
    assert model.doubled == 2
    assert rust(model) == before == rust({"a": 1})


def test_an_ordered_dict_keeps_its_own_order() -> None:
    moved = collections.OrderedDict(b=1, a=2)
    moved.move_to_end("b")
    on: dict[str, Any] = {"profile": "anthropic.messages"}
    assert rust({"tools": [{"input_schema": moved}]}, **on) == rust(
        {"tools": [{"input_schema": {"a": 2, "b": 1}}]}, **on
    )
    agree({"tools": [{"input_schema": moved}]}, **on)


class Root(pydantic.RootModel[list[int]]):
    pass


@pydantic.dataclasses.dataclass
class Validated:
    a: int


@pytest.mark.parametrize(
    ("special", "plain"),
    [
        (
            Outer("m", Inner("user", [1])),
            {"model": "m", "inner": {"role": "user", "content": [1]}, "late": 3},
        ),
        (Plain("m"), {"model": "m"}),
        (Plain("m", 2), {"model": "m", "n": 2}),
        (Tagged(), {"kind": "t", "someField": 1}),
        (Omitting(), {"a": 1}),
        (ArrayLike(1, 2), {"a": 2, "b": 1}),
        (Model.model_validate({"model": "m", "other": [1]}), {"model": "m", "text": "d", "other": [1]}),
        (Root([1]), {"root": [1]}),
        (Validated(1), {"a": 1}),
    ],
)
def test_records_are_mappings_of_their_fields(special: object, plain: object) -> None:
    assert reference.fingerprint(special) == reference.fingerprint(plain)
    assert rust(special) == rust(plain)
    assert rust([{"x": special}]) == rust([{"x": plain}])


@pytest.mark.parametrize("make", [dict, Model.model_validate, lambda fields: Model(**fields)])
def test_rules_reach_the_fields_of_records(make: Callable[[dict[str, Any]], object]) -> None:
    fields = {"model": "m", "text": "d", "temperature": 1.0, "stream": True}
    assert rust(make(fields), profile="openai.chat") == rust(
        {"model": "m", "text": "d"}, profile="openai.chat"
    )


@pytest.mark.parametrize("value", [Word.AUTO, Text("auto")], ids=kind)
def test_a_default_may_come_as_a_subclass(value: str) -> None:
    agree({"service_tier": value, "model": "m"}, profile="openai.chat")
    agree({"temperature": Real(1.0), "n": Number(1), "top_p": Level.ONE}, profile="openai.chat")


def test_records_keep_the_order_of_their_fields_where_order_counts() -> None:
    @dataclasses.dataclass
    class Schema:
        type: str
        properties: dict[str, int]

    tool = {"name": "f", "input_schema": Schema("object", {"b": 1, "a": 2})}
    plain = {"name": "f", "input_schema": {"type": "object", "properties": {"b": 1, "a": 2}}}
    assert rust({"tools": [tool]}, profile="anthropic.messages") == rust(
        {"tools": [plain]}, profile="anthropic.messages"
    )
