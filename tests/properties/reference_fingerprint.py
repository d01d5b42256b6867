"""The fingerprint of format version 1, written a second time in plain Python.

Written from `docs/reference/fingerprint.md` alone, in the order of that page, and slow on purpose: every line
can be compared with a sentence there. The Rust core and this file must agree on every request; where they do
not, the page decides. Only BLAKE3 itself comes from outside (the PyPI package `blake3`).
"""

from __future__ import annotations

import dataclasses
import json
import math
import struct
import unicodedata
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import blake3
import msgspec

NODE = 256
MAX_DEPTH = 128
MAX_VALUES = 1_000_000
MAX_BYTES = 256 * 2**20
PROFILES: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "golden" / "profiles_v1.json").read_text()
)
ANY_ITEM = None
"""What the `*` of an ordered path stands for: a step into an array, never a key."""


Steps = tuple[str | None, ...]


class UnkeyableError(ValueError):
    """The value has no canonical form. The message starts with the path to the culprit."""


def reduce(data: bytes) -> bytes:
    """One level of the tree: a digest for each 256-byte piece, the last one filled up with zero bytes."""
    pieces = [data[at : at + NODE].ljust(NODE, b"\0") for at in range(0, max(len(data), 1), NODE)]
    return b"".join(blake3.blake3(piece).digest() for piece in pieces)


def tree(data: bytes) -> bytes:
    """The 32-byte tree digest of any byte string."""
    data = reduce(data)
    while len(data) > 32:
        data = reduce(data)
    return data


def varint(number: int) -> bytes:
    """Unsigned LEB128, shortest form."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def canonical(value: object, nfc: bool = False, ordered_paths: Iterable[str] = ()) -> bytes:
    """The canonical form of one value. `ordered_paths` are relative to it, such as `tools.*.input_schema`."""
    return _Canonical(nfc).form(value, "", 0, _paths(ordered_paths))


def fingerprint(
    request: object,
    namespace: str = "default",
    profile: str = "generic",
    variant: str | int | None = None,
    nfc: bool = False,
) -> bytes:
    """The 32 bytes of a request."""
    if isinstance(request, bytes | bytearray | memoryview):
        if isinstance(request, bytes) and len(request) == 32:
            return bytes(request)
        _refuse("", "bare bytes are a ready fingerprint only when they are exactly 32 `bytes`")
    if isinstance(variant, bool) or not isinstance(variant, str | int | None):
        _refuse("", "variant is a string, an integer or None")
    document = b"LCF\x01" + canonical(namespace) + canonical(profile) + canonical(variant)
    document += canonical_request(request, profile, nfc)
    left = document
    while len(left) > NODE:
        left = reduce(left)
    key = b"llmcache_fast/fp" + bytes(8) + len(document).to_bytes(8, "little")
    return blake3.blake3(left, key=key).digest()


def canonical_request(request: object, profile: str = "generic", nfc: bool = False) -> bytes:
    """The canonical form of a request after its profile's rules; they touch only a mapping at the top."""
    rules = PROFILES[profile]
    writer = _Canonical(nfc)
    fields = writer.fields(request, "")
    ordered = _paths(rules["ordered"])
    if fields is None:
        return writer.form(request, "", 0, ordered)

    def kept(key: str, value: object) -> bool:
        if key in rules["drop"] or (value is None and key in rules["nullable"]):
            return False
        if key not in rules["default"] or not isinstance(value, bool | int | float | str):
            return True
        try:
            return canonical(value, nfc) != canonical(rules["default"][key])
        except UnkeyableError:
            return True  # refused below, with its path

    return writer.form({name: value for name, value in fields if kept(name, value)}, "", 0, ordered)


class _Canonical:
    """Walks one value and counts what the limits bound."""

    def __init__(self, nfc: bool) -> None:
        self.nfc = nfc
        self.values = 0
        self.bytes = 0

    def form(self, value: object, path: str, depth: int, ordered: list[Steps]) -> bytes:
        self.values += 1
        if self.values > MAX_VALUES:
            _refuse(path, f"more than {MAX_VALUES} values")
        if value is None:
            return b"\x00"
        if isinstance(value, bool):
            return b"\x02" if value else b"\x01"
        if isinstance(value, int):
            return _integer(int.__pos__(value))
        if isinstance(value, float):
            return _float(float.__pos__(value), path)
        if isinstance(value, str):
            return _blob(0x06, self.text(value, path))
        if isinstance(value, bytes | bytearray | memoryview):
            data = value.tobytes() if isinstance(value, memoryview) else bytes(value)
            self.count(len(data), path)
            return _blob(0x08, data)
        if isinstance(value, set | frozenset):
            return self.set_form(value, path, depth)
        if isinstance(value, list | tuple):
            if depth == MAX_DEPTH:
                _refuse(path, f"nested deeper than {MAX_DEPTH} levels")
            items = list(list.__iter__(value) if isinstance(value, list) else tuple.__iter__(value))
            forms = [
                self.form(item, f"{path}[{i}]", depth + 1, list(_below(ordered, ANY_ITEM)))
                for i, item in enumerate(items)
            ]
            return b"\x0a" + varint(len(forms)) + b"".join(forms)
        fields = self.fields(value, path)
        if fields is None:
            _refuse(path, f"values of type {type(value).__name__} have no canonical form")
        if depth == MAX_DEPTH:
            _refuse(path, f"nested deeper than {MAX_DEPTH} levels")
        return self.mapping_form(fields, path, depth, ordered)

    def mapping_form(
        self, fields: list[tuple[str, object]], path: str, depth: int, ordered: list[Steps]
    ) -> bytes:
        keep_order = () in ordered
        if not keep_order:
            fields = sorted(fields, key=lambda pair: pair[0])  # Python compares strings by code points
        out = bytearray([0x0C if keep_order else 0x0B]) + varint(len(fields))
        for name, item in fields:
            where = f"{path}.{name}" if path else name
            key = self.text(name, where)
            out += varint(len(key)) + key
            out += self.form(item, where, depth + 1, list(_below(ordered, name)))
        return bytes(out)

    def set_form(self, value: set[Any] | frozenset[Any], path: str, depth: int) -> bytes:
        if depth == MAX_DEPTH:
            _refuse(path, f"nested deeper than {MAX_DEPTH} levels")
        kinds: list[tuple[type, ...]] = [(str,), (int, float), (bytes,)]
        items = list(value)
        if any(isinstance(item, bool) for item in items) or not any(
            all(isinstance(item, kind) for item in items) for kind in kinds
        ):
            _refuse(path, "the items of a set are all strings, all numbers or all bytes")
        forms = sorted(self.form(item, path, depth + 1, []) for item in items)
        if len(set(forms)) != len(forms):
            _refuse(path, "two items of a set become equal under normalisation")
        return b"\x0d" + varint(len(forms)) + b"".join(forms)

    def fields(self, value: object, path: str) -> list[tuple[str, object]] | None:
        """The mapping that `value` stands for, keys normalised and checked; None when it is not one."""
        pairs = _pairs(value)
        if pairs is None:
            return None
        for key, _ in pairs:
            if not isinstance(key, str):
                _refuse(path, f"a key is of type {type(key).__name__}, not a string")
        named = [(self.normal(key), item) for key, item in pairs]
        if len({name for name, _ in named}) != len(named):
            _refuse(path, "two keys are equal under normalisation")
        return named

    def normal(self, text: str) -> str:
        text = str.__str__(text)
        return unicodedata.normalize("NFC", text) if self.nfc else text

    def text(self, value: str, path: str) -> bytes:
        try:
            encoded = self.normal(value).encode()
        except UnicodeEncodeError:
            _refuse(path, "a lone surrogate has no UTF-8 form")
        self.count(len(encoded), path)
        return encoded

    def count(self, length: int, path: str) -> None:
        self.bytes += length
        if self.bytes > MAX_BYTES:
            _refuse(path, f"more than {MAX_BYTES} bytes of text and bytes")


def _integer(number: int) -> bytes:
    if -(2**63) <= number < 2**63:
        return b"\x03" + varint(2 * number if number >= 0 else -2 * number - 1)
    magnitude = abs(number)
    data = magnitude.to_bytes((magnitude.bit_length() + 7) // 8, "big")
    return bytes([0x04, number < 0]) + varint(len(data)) + data


def _float(number: float, path: str) -> bytes:
    if not math.isfinite(number):
        _refuse(path, "NaN and the infinities have no canonical form")
    return _integer(int(number)) if number.is_integer() else b"\x05" + struct.pack(">d", number)


def _blob(short_tag: int, data: bytes) -> bytes:
    if len(data) < NODE:
        return bytes([short_tag]) + varint(len(data)) + data
    return bytes([short_tag + 1]) + varint(len(data)) + tree(data)


def _pairs(value: Any) -> list[tuple[Any, object]] | None:
    if isinstance(value, OrderedDict):
        return list(OrderedDict.items(value))
    if isinstance(value, dict):
        return list(dict.items(value))
    if isinstance(value, (type, str, int, float, list, tuple)):
        return None
    if isinstance(value, msgspec.Struct):
        config = value.__struct_config__
        found: list[tuple[Any, object]] = [] if config.tag is None else [(config.tag_field, config.tag)]
        named = zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True)
        found += [(name, getattr(value, attribute)) for attribute, name in named]
        return [(name, item) for name, item in found if item is not msgspec.UNSET]
    if hasattr(type(value), "__pydantic_fields__") and hasattr(value, "__pydantic_extra__"):
        extra = value.__pydantic_extra__ or {}
        return [(name, getattr(value, name)) for name in type(value).__pydantic_fields__] + list(
            extra.items()
        )
    if dataclasses.is_dataclass(value):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    if isinstance(value, Mapping):
        return list(value.items())
    return None


def _paths(dotted: Iterable[str]) -> list[Steps]:
    return [tuple(ANY_ITEM if step == "*" else step for step in path.split(".")) for path in dotted]


def _below(ordered: list[Steps], step: str | None) -> Iterator[Steps]:
    """What is left of the ordered paths one step further down; () means: all mappings keep their order."""
    for path in ordered:
        if not path or path[0] == step:
            yield path[1:]


def _refuse(path: str, why: str) -> NoReturn:
    raise UnkeyableError(f"{path or 'the request'}: {why}")
