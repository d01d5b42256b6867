"""Keys: which are taken, which refused, and that none is ever shown."""

from __future__ import annotations

import base64
import copy
import pickle
from pathlib import Path
from typing import Any

import pytest

from llmcache_fast import _core
from llmcache_fast._errors import ConfigurationError
from llmcache_fast._secrecy import ENVIRONMENT, Secrecy

ONE = bytes(range(100, 132))
TWO = bytes(range(132, 164))
BLIND = bytes(range(10, 42))


def written_by(secrecy: Secrecy) -> str:
    return secrecy.keyring.current_id


def key_id(key: bytes) -> str:
    return _core.Keyring([key]).current_id


@pytest.mark.parametrize(
    "text",
    [
        ONE.hex(),
        ONE.hex().upper(),
        f" {ONE.hex()}\n",
        base64.b64encode(ONE).decode(),
        base64.b64encode(ONE).decode().rstrip("="),
        base64.urlsafe_b64encode(bytes(range(224, 256))).decode(),
        bytearray(ONE),
    ],
)
def test_a_key_is_32_bytes_or_text_of_them(text: Any) -> None:
    key = bytes(range(224, 256)) if isinstance(text, str) and text.startswith("4OHi") else ONE
    assert written_by(Secrecy(text)) == key_id(key)


def test_the_first_key_writes_unless_another_is_named() -> None:
    keys = {"new": TWO, "old": ONE}
    assert written_by(Secrecy(keys)) == key_id(TWO)
    assert written_by(Secrecy(keys, current="old")) == key_id(ONE)
    assert key_id(ONE) != key_id(TWO)
    with pytest.raises(ConfigurationError, match="names none of the keys, which are new, old"):
        Secrecy(keys, current="older")


REFUSED: dict[str, tuple[Any, str]] = {
    "no keys": ({}, "at least one"),
    "short": (ONE[:31], "must be 32 bytes, not 31"),
    "long": (ONE + b"!", "must be 32 bytes, not 33"),
    "short text": (ONE.hex()[:-2], "text of 62 characters is no key"),
    "text that is no hex": ("g" + ONE.hex()[1:], "text of 64 characters is no key"),
    "base64 with something in it": (base64.b64encode(ONE).decode()[:40] + "!AA=", "is no key"),
    "a password": (b"correct horse battery staple 123", "looks written by hand"),
    "zeroes": (bytes(32), "looks written by hand"),
    "a number": (7, "not int"),
    "none": (None, "not NoneType"),
    "twice the same": ({"a": ONE, "b": ONE.hex()}, "two names have the same key"),
    "a key as a name": ({ONE.hex(): "name"}, "a name must be"),
    "an empty name": ({"": ONE}, "a name must be"),
    "a name of another type": ({7: ONE}, "a name must be"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_is_no_key_is_refused_without_showing_it(name: str) -> None:
    keys, message = REFUSED[name]
    with pytest.raises(ConfigurationError, match=message) as caught:
        Secrecy(keys)
    shown = _all_texts(caught.value)
    for secret in (ONE.hex(), base64.b64encode(ONE).decode(), "correct horse"):
        assert secret[:12] not in shown


def test_blinding_is_a_secret_of_its_own() -> None:
    assert Secrecy(ONE).blinding is None
    assert Secrecy(ONE, blinding=BLIND).blinding is not None
    with pytest.raises(ConfigurationError, match="blinding: is one of the keys"):
        Secrecy({"a": ONE, "b": BLIND}, blinding=BLIND.hex())
    with pytest.raises(ConfigurationError, match="blinding: must be 32 bytes, not 5"):
        Secrecy(ONE, blinding=b"short")


def test_it_says_what_it_does_and_no_secret() -> None:
    secrecy = Secrecy({"old": ONE, "new": TWO}, current="new", blinding=BLIND)
    shown = repr(secrecy) + str(secrecy) + repr(secrecy.keyring) + repr(secrecy.blinding)
    assert "keys=['old', 'new'], current='new', blinding=True, accept_plain=False" in shown
    for secret in (ONE, TWO, BLIND):
        assert secret.hex()[:8] not in shown
        assert repr(secret)[2:10] not in shown
    for holder in (secrecy, secrecy.keyring, secrecy.blinding):
        with pytest.raises(TypeError, match="cannot"):
            pickle.dumps(holder)
        assert not hasattr(holder, "__dict__")
    with pytest.raises(AttributeError):
        secrecy.searchable = True  # type: ignore[misc]
    assert copy.copy(secrecy) is copy.deepcopy(secrecy) is secrecy


def test_the_environment(tmp_path: Path) -> None:
    assert Secrecy.from_environment({"LLMCACHE_TTL": "7"}) is None
    text = f"new={TWO.hex()},old={base64.b64encode(ONE).decode()}"
    secrecy = Secrecy.from_environment({"LLMCACHE_KEYS": text, "LLMCACHE_BLINDING": BLIND.hex()})
    assert secrecy is not None
    assert written_by(secrecy) == key_id(TWO)
    assert secrecy.blinding is not None

    file, blinding = tmp_path / "keys", tmp_path / "blinding"
    file.write_text(f"# rotated in May\n\n old = {ONE.hex()}\nnew={TWO.hex()}\n")
    blinding.write_text(BLIND.hex() + "\n")
    variables = {
        "LLMCACHE_KEYS_FILE": str(file),
        "LLMCACHE_BLINDING_FILE": str(blinding),
        "LLMCACHE_CURRENT_KEY": "new",
        "LLMCACHE_ACCEPT_PLAIN": "1",
        "LLMCACHE_SEARCHABLE": "1",
    }
    secrecy = Secrecy.from_environment(variables)
    assert secrecy is not None
    assert written_by(secrecy) == key_id(TWO)
    assert "accept_plain=True, searchable=True" in repr(secrecy)
    assert variables.keys() <= ENVIRONMENT


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"LLMCACHE_KEYS": ONE.hex()}, "number 1 has no name"),
        ({"LLMCACHE_KEYS": base64.b64encode(ONE).decode()}, "number 1 has no name"),
        ({"LLMCACHE_KEYS": f"a={ONE.hex()},a={TWO.hex()}"}, "a is there twice"),
        ({"LLMCACHE_KEYS": ""}, "at least one"),
        ({"LLMCACHE_KEYS": f"a={ONE.hex()}", "LLMCACHE_KEYS_FILE": "/x"}, "are both set"),
        ({"LLMCACHE_KEYS_FILE": "/no/such/file"}, "cannot be read: No such file"),
        ({"LLMCACHE_BLINDING": BLIND.hex()}, "LLMCACHE_BLINDING needs LLMCACHE_KEYS"),
        ({"LLMCACHE_KEYS": f"a={ONE.hex()}", "LLMCACHE_ACCEPT_PLAIN": "yes"}, "must be 1 or 0"),
        ({"LLMCACHE_KEYS": f"a={ONE.hex()}", "LLMCACHE_CURRENT_KEY": ONE.hex()}, "the keys, which are a"),
    ],
)  # fmt: skip
def test_what_the_environment_cannot_mean(variables: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        Secrecy.from_environment(variables)
    shown = _all_texts(caught.value)
    for secret in (ONE.hex(), TWO.hex(), BLIND.hex(), base64.b64encode(ONE).decode()):
        assert secret[:12] not in shown


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(ONE + bytes(range(128, 160)))
    for variables in (
        {"LLMCACHE_KEYS_FILE": str(file)},
        {"LLMCACHE_KEYS": f"a={ONE.hex()}", "LLMCACHE_BLINDING_FILE": str(file)},
    ):
        with pytest.raises(ConfigurationError, match=r"no name|is no key") as caught:
            Secrecy.from_environment(variables)
        assert "\\x80" not in _all_texts(caught.value)
        assert ONE.decode("latin1")[:8] not in _all_texts(caught.value)


def test_the_rings_own_refusals() -> None:
    for keys, message in (([], "at least one"), ([ONE, ONE], "twice"), ([b"x"], "32 bytes"), ([7], "bytes")):
        with pytest.raises(ValueError, match=message):
            _core.Keyring(keys)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="blinding: 32 bytes are needed, 3 were given"):
        _core.Blinding(b"abc")


def _all_texts(error: BaseException | None) -> str:
    """What a log of the exception shows, and what it was raised from, hidden or not."""
    texts = ""
    while error is not None:
        texts += f"{error} {error!r} {error.args!r}"
        error = error.__cause__ or error.__context__
    return texts
