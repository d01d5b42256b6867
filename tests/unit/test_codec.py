"""Values to payloads and back: a hit is equal to what was stored, and a copy of its own."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcache_fast._codec import decode, encode
from llmcache_fast._errors import UnstorableValueError


class Struct(msgspec.Struct):
    a: int
    b: list[str] = []


@dataclasses.dataclass
class Data:
    a: int


class Model(pydantic.BaseModel):
    a: int
    b: dict[str, float] = {}


class Anything(pydantic.BaseModel):
    a: Any


class Plain:
    pass


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON | st.binary())
def test_builtins_come_back_equal(value: Any) -> None:
    content, payload = encode(value)
    found = decode(content, payload)
    assert found == value
    assert type(found) is type(value)
    if isinstance(value, list | dict):
        assert found is not value
        assert decode(content, payload) is not found, "each caller has a copy of its own"


def test_text_and_bytes_are_kept_as_they_are() -> None:
    for value, content in (("text", "text"), (b"bytes", "bytes")):
        assert encode(value) == (content, value)
        assert decode(content, value) is value  # type: ignore[arg-type]
    assert encode(bytearray(b"x")) == ("bytes", b"x")
    assert encode(memoryview(b"xyz")[1:]) == ("bytes", b"yz")


@pytest.mark.parametrize("value", [Struct(1, ["x"]), Data(2), Model(a=3, b={"c": 1.5})])
def test_typed_values_come_back_as_their_type(value: Any) -> None:
    found = decode(*encode(value, type(value)), type(value))
    assert found == value
    assert type(found) is type(value)
    assert found is not value


def test_a_payload_of_builtins_is_read_as_a_model() -> None:
    assert decode(*encode({"a": 3}), Model) == Model(a=3)
    assert decode(*encode({"a": 3}), Struct) == Struct(3)


@pytest.mark.parametrize("value", [Struct(1), Data(1), Model(a=1), Plain(), object()])
def test_a_value_without_its_type_is_refused_with_the_way_out(value: Any) -> None:
    with pytest.raises(UnstorableValueError, match=f"pass type={type(value).__name__}"):
        encode(value)


@pytest.mark.parametrize("value", [[Plain()], {"a": 2**70}, [{1, Plain}], "\ud800"])
def test_what_has_no_encoding_is_refused(value: Any) -> None:
    with pytest.raises(UnstorableValueError):
        encode(value)
    recursive: list[Any] = []
    recursive.append(recursive)
    with pytest.raises(UnstorableValueError):
        encode(recursive)


@pytest.mark.parametrize("field", [Plain(), "secret \ud800"])
def test_a_model_that_has_no_json_is_refused_without_its_text(field: Any) -> None:
    with pytest.raises(UnstorableValueError, match="Anything cannot be written") as caught:
        encode(Anything(a=field), Anything)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("content", "payload", "kind"),
    [
        ("msgpack", b"\x81\xa1x\x01", Struct),
        ("msgpack", b"\xc1", None),
        ("json", b"{", None),
        ("json", b'{"a": "no number"}', Model),
        ("text", "text", int),
        ("text", "text", Struct),
        ("bytes", b"bytes", Data),
    ],
)
def test_another_type_is_said_without_the_text(content: Any, payload: Any, kind: Any) -> None:
    with pytest.raises(UnstorableValueError) as caught:
        decode(content, payload, kind)
    assert content in str(caught.value)
    assert "no number" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__, "a traceback does not show the text either"


def test_a_stream_is_no_value() -> None:
    with pytest.raises(UnstorableValueError, match="read it with `stream`"):
        decode("stream", b"", None)
