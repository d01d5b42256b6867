"""Telling httpx from httpx2 by the object at hand: their classes are strangers to one another.

The package depends on neither. Whatever a transport needs (`Response`, `Request`, the base classes, the
exceptions) is taken from the library whose object it was given.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar, cast

LIBRARIES = ("httpx", "httpx2")

_T = TypeVar("_T")
_bound: dict[tuple[type, str, str], type] = {}


def library_of(value: object, base: str) -> ModuleType | None:
    """The library whose class `base` the value is an instance of; None when it is of neither."""
    for kind in type(value).__mro__:
        root = kind.__module__.partition(".")[0]
        if kind.__name__ == base and root in LIBRARIES:
            return sys.modules[root]
    return None


def bound(kind: type[_T], library: ModuleType, base: str) -> type[_T]:
    """`kind` as a subclass of the library's class `base`, so that the library's checks accept it."""
    found = _bound.get((kind, library.__name__, base))
    if found is None:
        body: dict[str, Any] = {"__module__": kind.__module__, "__doc__": kind.__doc__}
        make = cast("Callable[..., type]", type(kind))
        found = make(kind.__name__, (kind, getattr(library, base)), body)
        _bound[kind, library.__name__, base] = found
    return found
