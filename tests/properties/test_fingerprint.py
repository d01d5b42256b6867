"""The Rust fingerprint against the plain-Python reference, and what both promise of every request."""

from __future__ import annotations

import math
import random
import unicodedata
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import llmcache_fast
from llmcache_fast._errors import UnkeyableRequestError
from tests.properties import canonical_decoder
from tests.properties import reference_fingerprint as reference
from tests.properties.fingerprinting import agree, clean_text, rust, small, values

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
