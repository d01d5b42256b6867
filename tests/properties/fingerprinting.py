"""Values for the tests of the fingerprint, and the two implementations side by side."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st

import llmcache_fast
from llmcache_fast._errors import UnkeyableRequestError
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


def kind(value: object) -> str:
    """A test id that runs no method of the value."""
    return type(value).__name__
