"""Reads a canonical form back. That it can be read back, and ends where it must, is what makes it injective.

Arrays come back as lists, mappings as `Mapping`, sets as `Set` (both in the order found), long strings and
bytes as `Digest`: all of them compare by content and never equal one another across kinds.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass


@dataclass(frozen=True)
class Digest:
    kind: str
    length: int
    tree: bytes


@dataclass(frozen=True)
class Mapping:
    ordered: bool
    pairs: tuple[tuple[str, object], ...]


@dataclass(frozen=True)
class Set:
    items: tuple[object, ...]


def decode(data: bytes) -> object:
    """The value of a canonical form. Raises `ValueError` for anything that is not exactly one such form."""
    reader = _Reader(data)
    value = reader.value()
    if reader.at != len(data):
        raise ValueError(f"{len(data) - reader.at} bytes left over")
    return value


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        piece = self.data[self.at : self.at + count]
        if len(piece) != count:
            raise ValueError("the form ends too early")
        self.at += count
        return piece

    def varint(self) -> int:
        number, shift = 0, 0
        while True:
            byte = self.take(1)[0]
            number |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                if byte == 0 and shift > 7:
                    raise ValueError("a varint that is not in its shortest form")
                return number

    def value(self) -> object:
        tag = self.take(1)[0]
        match tag:
            case 0x00:
                return None
            case 0x01:
                return False
            case 0x02:
                return True
            case 0x03:
                zigzag = self.varint()
                return zigzag >> 1 if zigzag % 2 == 0 else -(zigzag + 1 >> 1)
            case 0x04:
                sign = -1 if self.take(1)[0] else 1
                magnitude = self.take(self.varint())
                if magnitude[0] == 0 or -(2**63) <= sign * int.from_bytes(magnitude, "big") < 2**63:
                    raise ValueError("a big integer that is not in its shortest form")
                return sign * int.from_bytes(magnitude, "big")
            case 0x05:
                number: float = struct.unpack(">d", self.take(8))[0]
                if number.is_integer():
                    raise ValueError("an integer under the tag of floats")
                return number
            case 0x06 | 0x08:
                length = self.varint()
                if length >= 256:
                    raise ValueError("a long value under a short tag")
                data = self.take(length)
                return data.decode() if tag == 0x06 else data
            case 0x07 | 0x09:
                length = self.varint()
                if length < 256:
                    raise ValueError("a short value under a long tag")
                return Digest("text" if tag == 0x07 else "bytes", length, self.take(32))
            case 0x0A:
                return [self.value() for _ in range(self.varint())]
            case 0x0B | 0x0C:
                count = self.varint()
                pairs = tuple((self.take(self.varint()).decode(), self.value()) for _ in range(count))
                names = [name for name, _ in pairs]
                if len(set(names)) != count or (tag == 0x0B and names != sorted(names)):
                    raise ValueError("keys twice or out of order")
                return Mapping(tag == 0x0C, pairs)
            case 0x0D:
                count, start = self.varint(), self.at
                items: list[object] = []
                forms: list[bytes] = []
                for _ in range(count):
                    items.append(self.value())
                    forms.append(self.data[start : self.at])
                    start = self.at
                if forms != sorted(set(forms)):
                    raise ValueError("set items twice or out of order")
                return Set(tuple(items))
            case _:
                raise ValueError(f"unknown tag {tag:#x}")
