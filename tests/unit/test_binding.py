"""Telling the two HTTP libraries apart."""

from __future__ import annotations

from types import ModuleType

import httpx
import httpx2
import pytest

from llmcache_fast.integrations.binding import bound, library_of


class Plain:
    """Stands for a class of ours."""


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_library_is_found_through_subclasses(library: ModuleType) -> None:
    class Own(library.AsyncBaseTransport):  # type: ignore[name-defined, misc]
        pass

    assert library_of(Own(), "AsyncBaseTransport") is library
    assert library_of(Own(), "AsyncClient") is None
    assert library_of(library.HTTPTransport(verify=False), "AsyncBaseTransport") is None
    assert library_of(object(), "AsyncBaseTransport") is None


def test_bound_classes_are_strangers_and_made_once() -> None:
    first = bound(Plain, httpx, "AsyncByteStream")
    second = bound(Plain, httpx2, "AsyncByteStream")
    assert first is bound(Plain, httpx, "AsyncByteStream")
    assert issubclass(first, (Plain, httpx.AsyncByteStream))
    assert not issubclass(second, httpx.AsyncByteStream)
    assert first.__name__ == "Plain"
