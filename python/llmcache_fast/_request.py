"""Requests that are not plain builtins: what the fingerprint sees of them.

What belongs here: turning dataclasses, msgspec Structs, pydantic models, other mappings and buffers into
builtins, one level at a time. What does not: the canonical form, which is the core's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import msgspec

from llmcache_fast._errors import UnkeyableRequestError


def plain(value: object) -> object:
    """One level of `value` as a builtin; called by the core for every object that is none.

    Raises:
        UnkeyableRequestError: the object has no canonical form; the reason says what to pass instead.
    """
    if isinstance(value, msgspec.Struct):
        return _struct_fields(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if hasattr(type(value), "__pydantic_fields__"):
        return {**vars(value), **(getattr(value, "__pydantic_extra__", None) or {})}
    if isinstance(value, Mapping):
        return dict(value.items())
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    kind = type(value)
    raise UnkeyableRequestError(
        f"a value of type {kind.__module__}.{kind.__qualname__} has no canonical form; "
        "pass it as a string, number, list or mapping"
    )


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
