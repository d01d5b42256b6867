"""What tiers tell each other of raised markers, as bytes.

One line of ASCII, so that it passes where only text does (`NOTIFY`), and short enough for 8,000 bytes:

    1:NAMESPACE:EPOCH:prev:seq:TARGETS

Namespace, epoch and each target are 16 lower-case hexadecimal digits, targets without anything between them;
`*` in place of targets says that they are not told. The seqs are decimal. Each message has one form, and what
has another is no message: whoever may publish on the channel may send anything.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from llmcache_fast.tiers.base import MAX_TOLD, Message

UNTOLD = "*"
_SEQ = rb"(0|[1-9][0-9]{0,18})"
_FORM = re.compile(
    rb"1:([0-9a-f]{16}):([0-9a-f]{16}):%b:%b:(\*|(?:[0-9a-f]{16}){0,%d})" % (_SEQ, _SEQ, MAX_TOLD)
)
_LARGEST = 2**63 - 1


def told(targets: Sequence[int], rules: Sequence[bytes] = ()) -> str:
    """The last field of the message about these: `UNTOLD` when they are too many, or when there is a rule."""
    if rules or len(targets) > MAX_TOLD:
        return UNTOLD
    return "".join(f"{target:016x}" for target in targets)


def encode(message: Message) -> bytes:
    """The bytes of a message; targets that are too many are not told."""
    namespace, epoch, prev, seq, targets = message
    named = UNTOLD if targets is None else told(targets)
    return f"1:{namespace:016x}:{epoch:016x}:{prev}:{seq}:{named}".encode()


def decode(payload: bytes) -> Message | None:
    """The message, or None: it is none. Raises nothing, and looks at no more than 4,200 bytes."""
    found = _FORM.fullmatch(payload)
    if found is None:
        return None
    namespace, epoch, prev, seq, named = found.groups()
    before, last = int(prev), int(seq)
    if not before < last <= _LARGEST:
        return None
    targets = None
    if named != b"*":
        targets = tuple(int(named[start : start + 16], 16) for start in range(0, len(named), 16))
    return Message(int(namespace, 16), int(epoch, 16), before, last, targets)
