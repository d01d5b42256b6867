"""The Rust fingerprint against the plain-Python reference, and what both promise of every request."""

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
import sys
import threading
import types
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec
import pydantic
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import llmcache_fast
from llmcache_fast._errors import UnkeyableRequestError
from tests.properties import canonical_decoder
from tests.properties import reference_fingerprint as reference

clean_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
long_text = st.builds(lambda text, n: text * n, clean_text, st.integers(1, 60))
integers = st.one_of(
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64, 10**400, -(10**400)]),
)
numbers = st.one_of(integers, st.floats(allow_nan=False, allow_infinity=False))
blobs = st.one_of(
    st.binary(max_size=40), st.builds(lambda data, n: data * n, st.binary(max_size=40), st.integers(1, 20))
)
sets = st.one_of(
    st.frozensets(long_text, max_size=5), st.frozensets(numbers, max_size=5), st.frozensets(blobs, max_size=5)
)
scalars = st.one_of(st.none(), st.booleans(), numbers, clean_text, long_text, blobs)
values = st.recursive(
    scalars | sets,
    lambda inner: st.one_of(
        st.lists(inner, max_size=6),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(clean_text, inner, max_size=6),
        st.dictionaries(st.sampled_from("abcdefgh"), inner, max_size=8),
    ),
    max_leaves=30,
)
small = st.recursive(
    st.sampled_from([None, False, True, 0, 1, 1.0, -0.0, 2**63, "", "1", b"", "a"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["", "a"]), inner, max_size=2)
    ),
    max_leaves=4,
)


def rust(request: object, *, nfc: bool = False, **options: Any) -> bytes:
    found: bytes = llmcache_fast.fingerprint(request, normalize="NFC" if nfc else None, **options)
    return found


def agree(request: object, **options: Any) -> None:
    """Both give the same fingerprint, or both refuse."""
    try:
        expected = reference.fingerprint(request, **options)
    except reference.UnkeyableError:
        with pytest.raises(UnkeyableRequestError):
            rust(request, **options)
    else:
        assert rust(request, **options) == expected


# --- agreement with the reference ---------------------------------------------------------------------------


@settings(max_examples=400)
@given(values)
def test_any_value(value: object) -> None:
    agree(value)


@given(values, clean_text, st.none() | clean_text | st.integers(-(2**63), 2**63 - 1))
def test_namespace_and_variant(value: object, namespace: str, variant: str | int | None) -> None:
    agree(value, namespace=namespace, variant=variant)


@given(values, st.sampled_from(sorted(reference.PROFILES)))
def test_any_value_under_any_profile(value: object, profile: str) -> None:
    agree(value, profile=profile)


combining = st.text(
    st.sampled_from("aeK\u0301\u0323\u0307\u212b\u212a\u1112\u1161\u11abq\U0001d15e\ufb01"), max_size=300
)


@given(values | st.recursive(combining, lambda v: st.lists(v) | st.dictionaries(combining, v, max_size=5)))
def test_normalised(value: object) -> None:
    agree(value, nfc=True)


@given(st.dictionaries(combining, combining, max_size=5))
def test_normalising_first_is_the_same(value: dict[str, str]) -> None:
    normal = {unicodedata.normalize("NFC", k): unicodedata.normalize("NFC", v) for k, v in value.items()}
    assume(len(normal) == len(value))
    assert rust(value, nfc=True) == rust(normal) == rust(normal, nfc=True)


ruled = {
    profile: sorted({*rules["drop"], *rules["default"], *rules["nullable"], "messages", "tools", "zzz"})
    for profile, rules in reference.PROFILES.items()
}
rule_values = st.one_of(
    st.sampled_from(
        [None, True, False, 0, 1, 1.0, -0.0, "auto", "medium", "disabled", [], {}, 2**64, 1e300, "x" * 300]
    ),
    small,
)


@settings(max_examples=400)
@given(st.data())
def test_rules_of_profiles(data: st.DataObject) -> None:
    profile = data.draw(st.sampled_from(sorted(ruled)))
    request = data.draw(st.dictionaries(st.sampled_from(ruled[profile]), rule_values, max_size=8))
    agree(request, profile=profile)


def schemas() -> st.SearchStrategy[Any]:
    leaf = st.sampled_from([1, "x", None])
    return st.recursive(
        leaf, lambda v: st.lists(v, max_size=2) | st.dictionaries(st.sampled_from("zyxabc"), v, max_size=4)
    )


def placed(path: str, value: object) -> Any:
    """A request with `value` at an ordered path."""
    for step in reversed(path.split(".")):
        value = [{"other": 1}, value] if step == "*" else {"z": 0, step: value, "a": 0}
    return value


@settings(max_examples=300)
@given(
    st.sampled_from(
        [(profile, path) for profile, rules in reference.PROFILES.items() for path in rules["ordered"]]
    ),
    schemas(),
)
def test_ordered_paths(where: tuple[str, str], schema: object) -> None:
    profile, path = where
    request = placed(path, schema)
    agree(request, profile=profile)
    agree(placed(path.replace("*", "items"), schema), profile=profile)
    agree({"deeper": request}, profile=profile)


# --- injective ----------------------------------------------------------------------------------------------


def model(value: Any) -> Any:
    """What the decoder should read back: the value, with the rules of the specification applied directly."""
    if isinstance(value, str):
        data = value.encode()
        return value if len(data) < 256 else canonical_decoder.Digest("text", len(data), reference.tree(data))
    if isinstance(value, bytes):
        return (
            value
            if len(value) < 256
            else canonical_decoder.Digest("bytes", len(value), reference.tree(value))
        )
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list | tuple):
        return [model(item) for item in value]
    if isinstance(value, dict):
        pairs = sorted((key, model(item)) for key, item in value.items()) if len(value) < 2 else None
        pairs = pairs or [(key, model(value[key])) for key in sorted(value)]
        return canonical_decoder.Mapping(False, tuple(pairs))
    if isinstance(value, frozenset):
        return {repr(model(item)) for item in value}
    return value


def comparable(decoded: object) -> object:
    """Sets lose their order, and bools and integers their equality in Python."""
    match decoded:
        case canonical_decoder.Set(items):
            return ("set", frozenset(repr(item) for item in items))
        case set():
            return ("set", frozenset(decoded))
        case list():
            return [comparable(item) for item in decoded]
        case canonical_decoder.Mapping(ordered, pairs):
            return ("mapping", ordered, [(key, comparable(item)) for key, item in pairs])
        case _:
            return (type(decoded).__name__, decoded)


@given(values)
def test_the_canonical_form_can_be_read_back(value: object) -> None:
    decoded = canonical_decoder.decode(reference.canonical(value))
    assert comparable(decoded) == comparable(model(value))


@settings(max_examples=500)
@given(small, small)
@example(1, True)
@example([], {})
@example(["a", "b"], ["ab"])
@example({"a": None}, {})
@example("1", 1)
@example("", b"")
@example([[], []], [[[]]])
def test_equal_exactly_when_the_canonical_forms_are(one: object, other: object) -> None:
    equal = reference.canonical(one) == reference.canonical(other)
    assert equal == (comparable(model(one)) == comparable(model(other)))
    if not isinstance(one, bytes) and not isinstance(other, bytes):
        assert (rust(one) == rust(other)) == equal


@given(values, st.binary(min_size=1, max_size=3))
def test_no_form_is_the_beginning_of_another(value: object, tail: bytes) -> None:
    with pytest.raises(ValueError, match="left over"):
        canonical_decoder.decode(reference.canonical(value) + tail)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=256, max_size=400), st.integers(0, 255))
def test_every_letter_of_a_long_string_counts(text: str, at: int) -> None:
    other = text[:at] + ("y" if text[at] != "y" else "x") + text[at + 1 :]
    assert rust([text]) != rust([other])
    assert rust([text + "\0"]) != rust([text])


def test_namespace_profile_and_variant_count() -> None:
    seen = {
        rust({"a": 1}),
        rust({"a": 1}, namespace="other"),
        rust({"a": 1}, profile="openai.chat"),
        rust({"a": 1}, variant=0),
        rust({"a": 1}, variant="0"),
        rust({"a": 1}, variant=1),
        rust({"a": 1}, variant=""),
    }
    assert len(seen) == 7


# --- order and number forms ---------------------------------------------------------------------------------


@given(st.dictionaries(clean_text, values, max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(value: dict[str, object], shuffle: random.Random) -> None:
    keys = list(value)
    shuffle.shuffle(keys)
    assert rust({key: value[key] for key in keys}) == rust(value)


@pytest.mark.parametrize(
    "keys",
    [
        ["\ue000", "\U00010000"],  # UTF-16 would sort the surrogate pair first
        ["\uffff", "\U0001f600"],
        ["a", "aa", "a\0"],
        ["", "\0"],
        ["abcdefgh", "abcdefghi", "abcdefgh\0", "abcdefgi"],
        ["\x7f", "\x80", "\u07ff", "\u0800"],
    ],
)
def test_keys_are_sorted_by_code_points(keys: list[str]) -> None:
    agree({key: i for i, key in enumerate(keys)})
    agree({key: len(keys) - 1 - i for i, key in enumerate(reversed(keys))})


@given(st.integers(-(2**53), 2**53))
def test_a_whole_float_is_its_integer(number: int) -> None:
    assert rust([number]) == rust([float(number)])


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_itself(number: float) -> None:
    whole = number.is_integer()
    assert rust([number]) == (rust([int(number)]) if whole else reference.fingerprint([number]))
    nearby = math.nextafter(number, math.inf)
    if math.isfinite(nearby) and nearby != number:
        assert rust([nearby]) != rust([number])


def test_number_forms() -> None:
    assert rust([1]) == rust([1.0]) == rust([1e0])
    assert rust([0]) == rust([0.0]) == rust([-0.0])
    assert rust([1]) != rust([True])
    assert rust([0]) != rust([False])
    assert rust([1e300]) == rust([int(1e300)])
    assert rust([2**63]) == rust([float(2**63)])
    assert rust([2**53 + 1]) != rust([float(2**53)])


@pytest.mark.parametrize("bits", [62, 63, 64, 65, 127, 128, 2039, 2040, 2041, 100_000])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("nudge", [-1, 0, 1])
def test_integers_of_any_size(bits: int, sign: int, nudge: int) -> None:
    agree([sign * 2**bits + nudge])


# --- kinds of objects ---------------------------------------------------------------------------------------


def kind(value: object) -> str:
    """A test id that runs no method of the value."""
    return type(value).__name__


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


# --- ready fingerprints and options -------------------------------------------------------------------------


def test_32_bytes_are_a_ready_fingerprint() -> None:
    ready = bytes(range(32))
    assert rust(ready) == ready
    assert rust(ready, namespace="other", profile="openai.chat") == ready


@pytest.mark.parametrize("value", [b"", b"x" * 31, b"x" * 33, bytearray(32), memoryview(bytes(32))])
def test_other_bare_bytes_are_refused(value: object) -> None:
    with pytest.raises(UnkeyableRequestError, match="32"):
        rust(value)


@pytest.mark.parametrize("value", [None, True, 1, 0.5, "text", [], (), {}, {"x"}])
def test_requests_need_not_be_mappings(value: object) -> None:
    agree(value)
    agree(value, profile="openai.chat")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"profile": "openai"}, "profile"),
        ({"variant": 0.5}, "variant"),
        ({"variant": True}, "variant"),
        ({"variant": [1]}, "variant"),
        ({"variant": "\ud800"}, "surrogate|variant"),
        ({"namespace": "\ud800"}, "surrogate|namespace"),
        ({"normalize": "NFKC"}, "normalize"),
        ({"normalize": "nfc"}, "normalize"),
    ],
)
def test_options_that_cannot_work(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        llmcache_fast.fingerprint({}, **options)


# --- the memo -----------------------------------------------------------------------------------------------


def copy_of(text: str) -> str:
    return "".join([text[:1], text[1:]])


def test_the_memo_does_not_change_the_fingerprint() -> None:
    texts = [
        letter * n
        for letter in ("x", "\u00e9", "\u20ac", "\U0001f600")
        for n in (85, 128, 255, 256, 257, 5000, 70_000)
    ]
    blobs = [b"x" * n for n in (255, 256, 257, 70_000)]
    for value in [*texts, *blobs]:
        cold = rust([value])
        assert [rust([value]) for _ in range(3)] == [cold] * 3
        assert rust([value[:1] + value[1:]]) == cold  # type: ignore[operator]
        assert rust({"a": value, "b": [value, value]}) == reference.fingerprint(
            {"a": value, "b": [value, value]}
        )
        assert rust([value]) == cold == reference.fingerprint([value])


def test_a_warm_memo_and_normalisation_do_not_mix() -> None:
    text = "e\u0301" * 200
    plain = rust([text])
    normal = rust([text], nfc=True)
    assert plain != normal
    assert (rust([text]), rust([text], nfc=True)) == (plain, normal)
    assert normal == rust([unicodedata.normalize("NFC", text)])


def test_the_memo_is_bounded_and_eviction_harmless() -> None:
    texts = [f"{i:08}" * 40 for i in range(20_000)]
    first = rust(texts)
    references = [sys.getrefcount(text) for text in texts]
    assert sum(count > references[0] for count in references) < 10_000
    assert rust(texts) == first
    assert rust([copy_of(text) for text in texts]) == first


def test_dead_objects_are_not_remembered_by_address() -> None:
    for i in range(5_000):
        text = f"{i:04}" * 100
        assert rust([text]) == reference.fingerprint([text])
        del text


def test_many_threads_agree() -> None:
    shared = [f"{i} " * 300 for i in range(200)]
    expected = {i: reference.fingerprint({"turns": shared[:i], "model": "m"}) for i in range(0, 200, 7)}
    wrong: list[int] = []
    start = threading.Barrier(8)

    def work(seed: int) -> None:
        order = list(expected) * 5
        random.Random(seed).shuffle(order)
        start.wait()
        for i in order:
            turns = shared[:i] if i % 2 else [copy_of(text) for text in shared[:i]]
            if rust({"model": "m", "turns": turns}) != expected[i]:
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


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
