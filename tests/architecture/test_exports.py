"""The public face: what `__all__` says is what is there, and each of it is documented."""

from __future__ import annotations

import inspect
import types

import pytest

import llmcache_fast

# Others build on these names: one that goes away or changes is a breaking release.
PROMISED = {
    "LLMCache",
    "SyncLLMCache",
    "Computed",
    "CacheResult",
    "LLMCacheError",
    "CacheClosedError",
    "UnkeyableRequestError",
    "fingerprint",
}


def test_all_is_what_is_there() -> None:
    there = {
        name
        for name, value in vars(llmcache_fast).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType) and name != "annotations"
    }
    public = {name for name in llmcache_fast.__all__ if not name.startswith("_")}
    assert there == public
    assert len(llmcache_fast.__all__) == len(set(llmcache_fast.__all__))


def test_what_was_promised_is_exported() -> None:
    assert set(llmcache_fast.__all__) >= PROMISED


@pytest.mark.parametrize("name", [name for name in llmcache_fast.__all__ if not name.startswith("_")])
def test_it_is_documented(name: str) -> None:
    value = getattr(llmcache_fast, name)
    if inspect.isclass(value) or callable(value):
        assert inspect.getdoc(value), f"{name} has no docstring"
