"""Requests that are no builtins: the fingerprint sees their fields."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, UserDict
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import msgspec
import pydantic
import pytest

from llmcache_fast import UnkeyableRequestError, fingerprint
from llmcache_fast._request import plain


@dataclasses.dataclass
class Data:
    model: str
    temperature: float = 1.0


class Struct(msgspec.Struct, rename={"from_": "from"}, tag_field="kind", tag="call"):
    model: str
    from_: int | msgspec.UnsetType = msgspec.UNSET


class Model(pydantic.BaseModel, extra="allow"):
    model: str

    @cached_property
    def expensive(self) -> str:
        return "not a field"


class Shouting(dict[str, Any]):
    def items(self) -> Any:
        return [("LOUD", 1)]


class Twice(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        return iter(["a", "a"])

    def __len__(self) -> int:
        return 2


def test_fields_become_a_dict() -> None:
    model = Model(model="m", more=2)  # type: ignore[call-arg]
    assert model.expensive
    assert plain(Data("m")) == {"model": "m", "temperature": 1.0}
    assert plain(Struct("m", 3)) == {"model": "m", "from": 3, "kind": "call"}
    assert plain(Struct("m")) == {"model": "m", "kind": "call"}, "what is not set is absent"
    assert plain(model) == {"model": "m", "more": 2}
    assert plain(UserDict(a=1)) == {"a": 1}
    assert plain(bytearray(b"x")) == b"x"
    assert plain(memoryview(b"abcd")[::2]) == b"ac"


def test_a_dicts_subclass_is_what_it_holds() -> None:
    assert plain(Shouting(a=1)) == {"a": 1}
    assert list(plain(OrderedDict([("b", 1), ("a", 2)]))) == ["b", "a"]  # type: ignore[call-overload]


def test_the_fingerprint_is_that_of_the_dict() -> None:
    as_dict = {"messages": [{"model": "m", "temperature": 1}], "n": {"model": "m", "kind": "call"}}
    assert fingerprint({"messages": [Data("m")], "n": Struct("m")}) == fingerprint(as_dict)
    assert fingerprint(Model(model="m")) == fingerprint({"model": "m"})


@pytest.mark.parametrize("value", [object(), int, lambda: 1, Data])
def test_what_has_no_canonical_form_is_refused_by_type(value: Any) -> None:
    with pytest.raises(UnkeyableRequestError, match="has no canonical form; pass it as a string"):
        plain(value)
    with pytest.raises(UnkeyableRequestError) as caught:
        fingerprint({"messages": [{"content": value}]})
    assert caught.value.path == "messages[0].content"


def test_a_key_given_twice_is_refused() -> None:
    with pytest.raises(UnkeyableRequestError, match="the same key twice"):
        plain(Twice())
