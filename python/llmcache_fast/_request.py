"""Requests that are not plain builtins: what the fingerprint sees of them.

What belongs here: turning dataclasses, msgspec Structs, pydantic models, other mappings and buffers into
builtins, one level at a time. What does not: the canonical form, which is the core's.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from llmcache_fast._errors import UnkeyableRequestError


def plain(value: object) -> object:
    """One level of `value` as a builtin; called by the core for every object that is none.

    Raises:
        UnkeyableRequestError: the object has no canonical form; the reason says what to pass instead.
    """
    if issubclass(type(value), dict):
        # What the dict holds, whatever a subclass defines; an `OrderedDict` keeps an order of its own.
        owner = OrderedDict if isinstance(value, OrderedDict) else dict
        return dict(owner.items(cast("dict[Any, Any]", value)))
    if isinstance(value, msgspec.Struct):
        return _struct_fields(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(fields := getattr(type(value), "__pydantic_fields__", None), Mapping):
        # Not `vars(value)`: it holds cached properties too.
        extra = getattr(value, "__pydantic_extra__", None) or {}
        return {**{name: getattr(value, name) for name in fields}, **extra}
    if isinstance(value, Mapping):
        return _items(value)
    if isinstance(value, bytearray | memoryview):
        return memoryview(value).tobytes()
    kind = type(value)
    raise UnkeyableRequestError(
        f"a value of type {kind.__module__}.{kind.__qualname__} has no canonical form; "
        "pass it as a string, number, list or mapping"
    )


def _items(value: Mapping[Any, Any]) -> dict[Any, Any]:
    items = list(value.items())
    fields = dict(items)
    if len(fields) != len(items):
        raise UnkeyableRequestError("a mapping has the same key twice; pass a plain dict")
    return fields


def _struct_fields(value: msgspec.Struct) -> dict[str, Any]:
    fields = {
        encoded: item
        for name, encoded in zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True)
        if (item := getattr(value, name)) is not msgspec.UNSET
    }
    config = value.__struct_config__
    if config.tag is not None and config.tag_field is not None:
        fields[config.tag_field] = config.tag
    return fields
