"""What the server runs, so that a condition and the write it guards are one step.

Called by their digest; a server that does not know one (`NOSCRIPT`: restarted, flushed, never asked) is given
the text once. `EVAL` does that, so the user needs no permission for `SCRIPT LOAD`.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files

PREFIX = "llmcache_fast.tiers.redis"


def _load(*names: str) -> tuple[bytes, bytes]:
    """Digest and text of a script in one file, or in some that follow one another."""
    text = b"".join((files(PREFIX) / "lua" / f"{name}.lua").read_bytes() for name in names)
    # Redis names a script by its SHA-1.
    return hashlib.sha1(text, usedforsecurity=False).hexdigest().encode(), text


PUT, _put = _load("put")
DELETE, _delete = _load("delete")
DISCARD, _discard = _load("discard")
RAISE, _raise = _load("clock", "raise")
CHANGES, _changes = _load("clock", "changes")
LEASE, _lease = _load("lease")
HOLD, _hold = _load("hold")
RELEASE, _release = _load("release")
JOIN, _join = _load("join")
LEAVE, _leave = _load("leave")

TEXTS: dict[bytes, bytes] = {
    PUT: _put,
    DELETE: _delete,
    DISCARD: _discard,
    RAISE: _raise,
    CHANGES: _changes,
    LEASE: _lease,
    HOLD: _hold,
    RELEASE: _release,
    JOIN: _join,
    LEAVE: _leave,
}
"""Text by digest."""
