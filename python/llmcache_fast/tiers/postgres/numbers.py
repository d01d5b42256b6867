"""The package's numbers as Postgres keeps them: its largest integer is signed and has 64 bits.

Numbers of which only equality counts (epochs, namespaces, targets) travel in two's complement. Where order
counts (snaps), the statement flips the sign bit on both sides, which turns signed into unsigned order.
"""

from __future__ import annotations

LARGEST = 2**63 - 1
_SIGN, _ROUND = 1 << 63, 1 << 64


def to_signed(number: int) -> int:
    """The bigint of an unsigned 64-bit number."""
    return number - _ROUND if number >= _SIGN else number


def to_unsigned(number: int) -> int:
    """Back from `to_signed`."""
    return number + _ROUND if number < 0 else number


def capped(number: int) -> int:
    """A number of which nobody will miss what is beyond the largest bigint: a cost, a time, a seq asked for.

    Seqs are microseconds, so that none reaches it before the year 294000.
    """
    return max(-_SIGN, min(number, LARGEST))
