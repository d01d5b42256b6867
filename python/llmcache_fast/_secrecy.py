"""Keys: where they come from, which of them seals, and what tiers may see.

What belongs here: reading and checking secrets. What does not: what is sealed with them (`_wire`), and the
cryptography itself (`_core`).
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NoReturn, Self, TypeAlias

from llmcache_fast import _core
from llmcache_fast._errors import ConfigurationError

Key: TypeAlias = bytes | str
"""32 random bytes, as they are or as text: 64 hex digits or 44 characters of base64 (URL-safe or not)."""

ENVIRONMENT: Final = frozenset(
    {
        "LLMCACHE_KEYS",
        "LLMCACHE_KEYS_FILE",
        "LLMCACHE_CURRENT_KEY",
        "LLMCACHE_BLINDING",
        "LLMCACHE_BLINDING_FILE",
        "LLMCACHE_ACCEPT_PLAIN",
        "LLMCACHE_SEARCHABLE",
    }
)
"""Variables that `Secrecy.from_environment` reads."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,32}")
"""Of a key. Shorter than any key's text, so that a key in the place of a name is never shown."""
_MAKE_ONE: Final = "make one with `openssl rand -hex 32`"


class Secrecy:
    """What keeps stored records secret. Immutable; it shows no key, and cannot be pickled.

    `keys` is one key, or keys by name (1 to 32 letters, digits, `.`, `_` or `-`); all of them read. The first
    writes, unless `current` names another.

    `blinding` is a secret apart from the keys. With it, tiers see neither fingerprints nor the targets of
    invalidations, only names derived from them. All processes that share tiers need the same one, and it does
    not rotate: another one is an empty cache.

    Records that are not sealed are refused, unless `accept_plain` says otherwise: for the time in which
    sealing is introduced.

    Tiers that can be searched hold the namespace, tags, label and model of an entry in clear only with
    `searchable`.

    Raises:
        ConfigurationError: a key that is none, that is weak, or that is there twice. No message shows a key.
    """

    __slots__ = ("_blinding", "_current", "_keyring", "_names", "_plain", "_searchable")

    def __init__(
        self,
        keys: Key | Mapping[str, Key],
        *,
        current: str | None = None,
        blinding: Key | None = None,
        accept_plain: bool = False,
        searchable: bool = False,
    ) -> None:
        ring = _named(keys)
        if current is None:
            current = next(iter(ring))
        elif current not in ring:
            raise ConfigurationError(f"current: names none of the keys, which are {', '.join(ring)}")
        names = (current, *(name for name in ring if name != current))
        try:
            self._keyring = _core.Keyring([ring[name] for name in names], accept_plain=bool(accept_plain))
        except ValueError:
            raise ConfigurationError("keys: two names have the same key; drop one of them") from None
        self._blinding = None if blinding is None else _core.Blinding(_blinding_of(blinding, ring))
        self._names = tuple(ring)
        self._current = current
        self._plain = bool(accept_plain)
        self._searchable = bool(searchable)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self | None:
        """What `LLMCACHE_KEYS` and the like say, or None when they say nothing.

        `LLMCACHE_KEYS` is `name=key,name=key`; `LLMCACHE_KEYS_FILE` names a file of such lines, in which
        empty lines and those that begin with `#` count for nothing. `LLMCACHE_CURRENT_KEY` names the one that
        writes. `LLMCACHE_BLINDING` is the blinding secret, `LLMCACHE_BLINDING_FILE` a file that holds it.
        `LLMCACHE_ACCEPT_PLAIN` and `LLMCACHE_SEARCHABLE` are `1` or `0`.

        Raises:
            ConfigurationError: as the constructor; a file that cannot be read, or two places for one thing.
        """
        variables = os.environ if environment is None else environment
        keys = _variable(variables, "LLMCACHE_KEYS")
        blinding = _variable(variables, "LLMCACHE_BLINDING")
        if keys is None:
            if given := sorted(ENVIRONMENT & variables.keys()):
                raise ConfigurationError(f"{', '.join(given)} needs LLMCACHE_KEYS or LLMCACHE_KEYS_FILE")
            return None
        return cls(
            _lines(keys),
            current=variables.get("LLMCACHE_CURRENT_KEY"),
            blinding=blinding if blinding is None else blinding.strip(),
            accept_plain=_switch(variables, "LLMCACHE_ACCEPT_PLAIN"),
            searchable=_switch(variables, "LLMCACHE_SEARCHABLE"),
        )

    @property
    def keyring(self) -> _core.Keyring:
        """For `_core.encode_envelope` and `_core.decode_envelope`."""
        return self._keyring

    @property
    def blinding(self) -> _core.Blinding | None:
        """What blinds names; None when they are not."""
        return self._blinding

    @property
    def searchable(self) -> bool:
        """Whether tiers may hold what can be searched in clear."""
        return self._searchable

    def __repr__(self) -> str:
        return (
            f"Secrecy(keys={list(self._names)}, current={self._current!r}, "
            f"blinding={self._blinding is not None}, accept_plain={self._plain}, "
            f"searchable={self._searchable})"
        )

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("Secrecy cannot be pickled: give each process its keys by environment or file")


def _named(keys: Key | Mapping[str, Key]) -> dict[str, bytes]:
    named = keys if isinstance(keys, Mapping) else {"key": keys}
    if not named:
        raise ConfigurationError("keys: at least one is needed; " + _MAKE_ONE)
    for name in named:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigurationError(
                "keys: a name must be 1 to 32 letters, digits, '.', '_' or '-'; write {name: key}"
            )
    return {name: _secret(f"keys: {name}", key) for name, key in named.items()}


def _blinding_of(blinding: Key, ring: dict[str, bytes]) -> bytes:
    secret = _secret("blinding", blinding)
    if secret in ring.values():
        # It would have to stay when the key goes.
        raise ConfigurationError("blinding: is one of the keys; it must be a secret of its own")
    return secret


def _secret(what: str, key: object) -> bytes:
    """32 bytes that do not look made by hand. Messages show lengths alone."""
    if isinstance(key, str):
        key = _bytes_of(what, key.strip())
    if not isinstance(key, bytes | bytearray | memoryview):
        raise ConfigurationError(f"{what}: must be 32 bytes, or text of them, not {type(key).__name__}")
    secret = bytes(key)
    if len(secret) != 32:
        raise ConfigurationError(f"{what}: must be 32 bytes, not {len(secret)}; {_MAKE_ONE}")
    # Of random bytes, 1 in 10^13 is all printable, and fewer have so few values.
    if len(set(secret)) < 10 or all(0x20 <= byte < 0x7F for byte in secret):
        raise ConfigurationError(f"{what}: is not random, it looks written by hand; {_MAKE_ONE}")
    return secret


def _bytes_of(what: str, text: str) -> bytes:
    try:
        if re.fullmatch(r"[0-9a-fA-F]{64}", text):
            return bytes.fromhex(text)
        if re.fullmatch(r"[A-Za-z0-9+/_-]{43}=?", text):
            return base64.b64decode(text.rstrip("=").translate(_STANDARD) + "=", validate=True)
    except binascii.Error:
        pass
    raise ConfigurationError(
        f"{what}: text of {len(text)} characters is no key: write 64 hex digits or 44 of base64; {_MAKE_ONE}"
    ) from None


_STANDARD = str.maketrans("-_", "+/")


def _lines(text: str) -> dict[str, Key]:
    """Keys by name, from `name=key` parted by commas or line ends."""
    keys: dict[str, Key] = {}
    lines = [line.strip() for line in re.split(r"[,\n]", text)]
    for number, line in enumerate((line for line in lines if line and not line.startswith("#")), start=1):
        name, equals, key = line.partition("=")
        if not equals or not _NAME.fullmatch(name.strip()):
            raise ConfigurationError(f"keys: number {number} has no name: write name=key")
        if name.strip() in keys:
            raise ConfigurationError(f"keys: {name.strip()} is there twice")
        keys[name.strip()] = key
    return keys


def _switch(variables: Mapping[str, str], name: str) -> bool:
    value = variables.get(name, "0")
    if value not in ("0", "1"):
        raise ConfigurationError(f"{name}: must be 1 or 0")
    return value == "1"


def _variable(variables: Mapping[str, str], name: str) -> str | None:
    """The variable, or the content of the file that `<name>_FILE` names."""
    text, file = variables.get(name), variables.get(f"{name}_FILE")
    if text is not None and file is not None:
        raise ConfigurationError(f"{name} and {name}_FILE are both set: which is meant?")
    if file is None:
        return text
    try:
        # A decoder's error would carry the content along.
        return Path(file).read_bytes().decode("ascii", "replace")
    except OSError as error:
        raise ConfigurationError(f"{name}_FILE: {file!r} cannot be read: {error.strerror}") from None
