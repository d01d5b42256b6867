"""Entries on their way to the tiers and back: compressed, sealed, under blinded names.

What belongs here: what a tier gets to see. What does not: which tier, and when (`_lookup`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec

from llmcache_fast import _entry
from llmcache_fast._core import Keyring, decode_envelope, encode_envelope
from llmcache_fast._secrecy import Secrecy
from llmcache_fast.tiers.base import StoredRecord

INCIDENTS: Final = frozenset({"wrong_namespace", "wrong_fingerprint", "unauthentic"})
"""Reasons that say that an answer to another question came back, or that somebody made one up: a store, a
connection or a key space is mixed up. A connection that gave such a record is not used again."""


class Wire:
    """How a cache writes to its tiers and reads from them. Immutable; one for all tiers.

    A *tier key* and a *tier target* are what tiers know fingerprints, invalidation targets and namespaces by.
    Without a blinding secret they are the things themselves.
    """

    __slots__ = ("_blinding", "_compress", "_hidden", "_keyring")

    def __init__(self, secrecy: Secrecy | None = None, *, compress: bool = True) -> None:
        self._compress = compress
        self._keyring = None if secrecy is None else secrecy.keyring
        self._blinding = None if secrecy is None else secrecy.blinding
        self._hidden = secrecy is not None and not secrecy.searchable

    @property
    def keyring(self) -> Keyring | None:
        """The keys that seal what leaves the process."""
        return self._keyring

    @property
    def blinds(self) -> bool:
        """Whether tiers know things by other names."""
        return self._blinding is not None

    def record(self, entry: _entry.Entry) -> StoredRecord:
        """What a tier gets of an entry. The same for all tiers: make it once.

        Costs microseconds for each KiB of a compressed payload, a tenth of that without.

        Raises:
            ValueError: a part that does not fit the wire form: 64 KiB of namespace, 4 GiB of payload.
        """
        facts = entry.facts
        return StoredRecord(
            key=self.tier_key(entry.key),
            envelope=_entry.to_envelope(entry, compress=self._compress, keyring=self._keyring),
            epoch=entry.epoch,
            snap=entry.snap,
            stale_until=entry.stale_until,
            cost=entry.cost,
            created=entry.created,
            fresh_until=entry.fresh_until,
            namespace=None if self._hidden else entry.namespace,
            facts=None if self._hidden else _bare(facts),
            partition=None if facts.semantic is None else self.tier_key(facts.semantic.partition),
        )

    def entry(self, envelope: bytes, namespace: str, key: bytes) -> tuple[_entry.Entry | None, str]:
        """The entry of what a tier gave for a fingerprint, or None and why not: see `INCIDENTS`.

        Nothing that a tier gives raises.
        """
        return _entry.from_envelope(envelope, namespace, key, keyring=self._keyring)

    def examine(self, envelope: bytes) -> tuple[_entry.Seen | None, str]:
        """What a record says of itself that a walk through a tier has met; see `_entry.examine`."""
        return _entry.examine(envelope, keyring=self._keyring)

    def note(self, key: bytes, payload: bytes, now: int) -> StoredRecord:
        """A record that is no entry: a note from one process to others in a tier's own keys. No reader takes
        it for an answer, for its kind is none of a value."""
        envelope = encode_envelope(
            kind=_NOTE,
            content_type=0,
            epoch=0,
            snap=0,
            created=now,
            fresh_until=_entry.NEVER,
            stale_until=_entry.NEVER,
            compute_micros=0,
            cost=0,
            fingerprint=key,
            namespace="",
            facts=b"",
            payload=payload,
            keyring=self._keyring,
        )
        return StoredRecord(key, envelope, 0, 0, _entry.NEVER, 0, now)

    def noted(self, key: bytes, envelope: bytes) -> bytes | None:
        """What a note says; None if it is none."""
        found, _ = decode_envelope(envelope, "", key, self._keyring)
        return found.payload if found is not None and found.kind == _NOTE else None

    def tier_key(self, key: bytes) -> bytes:
        """What tiers call the entry of a fingerprint, or a partition."""
        return key if self._blinding is None else self._blinding.tier_key(key)

    def tier_target(self, target: int) -> int:
        """What authorities call an invalidation target or a namespace."""
        return target if self._blinding is None else self._blinding.tier_target(target)

    def tier_targets(self, targets: Sequence[int]) -> Sequence[int]:
        """`tier_target` of each."""
        return targets if self._blinding is None else self._blinding.tier_targets(targets)

    def target(self, tier_target: int) -> int:
        """The opposite of `tier_target`."""
        return tier_target if self._blinding is None else self._blinding.target(tier_target)

    def targets(self, tier_targets: Sequence[int]) -> Sequence[int]:
        """`target` of each: what an authority's markers are about."""
        return tier_targets if self._blinding is None else self._blinding.targets(tier_targets)

    def rule(self, namespace: str, pattern: str) -> bytes:
        """What authorities keep of a pattern: an envelope, so that it is sealed and bound to its namespace as
        an entry is. The same each time, without keys."""
        entry = _entry.Entry(
            key=_rule_key(namespace),
            namespace=_RULES,
            content="text",
            payload=pattern,
            facts=_entry.Facts(),
            created=0,
            fresh_until=_entry.NEVER,
            stale_until=_entry.NEVER,
            epoch=0,
            snap=0,
            cost=0,
        )
        return _entry.to_envelope(entry, keyring=self._keyring)

    def pattern(self, namespace: str, rule: bytes) -> str | None:
        """The pattern of a rule; None if it is of another namespace, or sealed with an unknown key."""
        entry, _ = _entry.from_envelope(rule, _RULES, _rule_key(namespace), keyring=self._keyring)
        return entry.payload if entry is not None and isinstance(entry.payload, str) else None


_RULES: Final = "rules"
_NOTE: Final = 2
"""The envelope's kind of what is no response."""


def _bare(facts: _entry.Facts) -> _entry.Facts:
    """Without the facet, which is for those alone who open the envelope."""
    return facts if facts.semantic is None else msgspec.structs.replace(facts, semantic=None)


def _rule_key(namespace: str) -> bytes:
    return hashlib.blake2b(namespace.encode(), digest_size=32, person=b"llmcache rules").digest()


PLAIN: Final = Wire(compress=False)
"""Records as they are."""
