"""The exception tree: each can be caught by its kin, copied, pickled, printed."""

from __future__ import annotations

import copy
import inspect
import pickle  # of exceptions only: worker processes send them
from typing import Any

import pytest

import llmcache_fast
from llmcache_fast import _errors
from llmcache_fast._errors import LLMCacheError, TierError, TierUnavailableError, UnkeyableRequestError

ALL = [
    kind
    for _, kind in inspect.getmembers(_errors, inspect.isclass)
    if issubclass(kind, LLMCacheError) and kind.__module__ == _errors.__name__
]


def make(kind: Any) -> LLMCacheError:
    error: LLMCacheError
    if issubclass(kind, UnkeyableRequestError):
        error = kind("NaN is no number", "messages[3].content")
    elif issubclass(kind, TierError):
        error = kind("the file is locked", tier="disk", operation="put_many", reason="busy")
    else:
        error = kind("what and where")
    return error


@pytest.mark.parametrize("kind", ALL)
def test_it_survives_copying_and_pickling(kind: type[LLMCacheError]) -> None:
    error = make(kind)
    for again in (copy.copy(error), pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
        assert type(again) is kind
        assert str(again) == str(error) != ""
        assert again.__dict__ == error.__dict__
        assert again is not error


@pytest.mark.parametrize("kind", ALL)
def test_it_is_public_and_documented(kind: type[LLMCacheError]) -> None:
    assert getattr(llmcache_fast, kind.__name__) is kind
    assert kind.__doc__
    assert kind.__name__ in (_errors.__doc__ or ""), "the tree is drawn at the top of the file"


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        ("ConfigurationError", ValueError),
        ("UnkeyableRequestError", ValueError),
        ("UnstorableValueError", TypeError),
        ("CacheClosedError", RuntimeError),
        ("NotCachedError", LookupError),
        ("FlightDeadlineExceeded", TimeoutError),
        ("WaitTimeoutError", TimeoutError),
        ("ReentrancyError", RuntimeError),
    ],
)
def test_code_that_knows_only_builtins_catches_it(kind: str, builtin: type[Exception]) -> None:
    with pytest.raises(builtin):
        raise make(getattr(_errors, kind))


def test_errors_carry_facts() -> None:
    keyed = UnkeyableRequestError("NaN is no number", "messages[3].content")
    assert str(keyed) == "messages[3].content: NaN is no number"
    assert (keyed.reason, keyed.path) == ("NaN is no number", "messages[3].content")
    assert str(UnkeyableRequestError("too deep")) == "the request: too deep"
    tier = TierUnavailableError("no such folder", tier="disk", operation="open", reason="missing")
    assert str(tier) == "disk.open: no such folder"
    again = tier.again()
    assert again is not tier
    assert (type(again), again.__dict__) == (TierUnavailableError, tier.__dict__)
