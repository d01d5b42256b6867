"""Values to payloads and back.

Every caller of a request gets its own copy, and the same whether it missed, joined or hit: what is not
`bytes` or `str` is encoded once and decoded for each.
"""

from __future__ import annotations

import functools
from typing import Any

import msgspec

from llmcache_fast._entry import Content
from llmcache_fast._errors import UnstorableValueError

_encoder = msgspec.msgpack.Encoder()
_BUILTINS = (dict, list, tuple, int, float, bool, type(None), set, frozenset)
_SCALARS = frozenset({str, bytes, int, float, bool})


def encode(value: object, kind: Any = None) -> tuple[Content, bytes | str]:
    """Content type and payload of a value; `kind` is the type the caller will ask for, if any.

    Costs one encoding, and one decoding where only that tells whether a hit will be one: a Struct or a model
    may hold what its own type refuses.

    Raises:
        UnstorableValueError: the value cannot be decoded to the same again; says what to do.
    """
    content, payload = _encode(value, kind)
    if not (kind is None or kind is Any or (type(value) is kind and kind in _SCALARS)):
        # What is not of the type the callers ask for would be a miss for ever.
        decode(content, payload, kind)
    return content, payload


def _encode(value: object, kind: Any) -> tuple[Content, bytes | str]:
    if type(value) is bytes:
        return "bytes", value
    if type(value) is str:
        try:
            value.encode()
        except UnicodeEncodeError:
            raise UnstorableValueError("the text holds a lone surrogate, which has no UTF-8 form") from None
        return "text", value
    if isinstance(value, bytearray | memoryview):
        return "bytes", bytes(value)
    dump = getattr(value, "model_dump_json", None)
    if kind is None and (dump is not None or not isinstance(value, _BUILTINS)):
        name = type(value).__name__
        raise UnstorableValueError(
            f"a value of type {name} cannot be stored without its type: pass type={name}, so that a hit "
            "returns the same, or return builtins (dict, list, str, bytes, numbers)"
        )
    if dump is not None:
        try:
            return "json", dump().encode()
        except Exception as error:  # noqa: BLE001 - a model's serializers are foreign code
            # Not chained: the message may quote the value.
            raise UnstorableValueError(
                f"the model {type(value).__name__} cannot be written as JSON ({type(error).__name__})"
            ) from None
    try:
        return "msgpack", _encoder.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        # Not chained: an encoder's error carries the text that it stumbled over.
        raise UnstorableValueError(
            f"the value cannot be encoded ({type(error).__name__}); return builtins, a dataclass, "
            "a msgspec.Struct or a pydantic model"
        ) from None


def decode(content: Content, payload: bytes | str, kind: Any = None) -> Any:
    """The value of a payload, as an instance of `kind` if given.

    Raises:
        UnstorableValueError: the payload is of another type.
    """
    if content == "stream":
        raise UnstorableValueError("the entry is a recorded stream; read it with `stream`")
    try:
        if content in ("bytes", "text") or isinstance(payload, str):
            if kind is None or kind is Any or type(payload) is kind:
                return payload
            return msgspec.convert(payload, kind)
        if kind is None or kind is Any:
            return _decoder(content, Any).decode(payload)
        if hasattr(kind, "model_validate_json"):
            if content == "json":
                return kind.model_validate_json(payload)
            return kind.model_validate(_decoder(content, Any).decode(payload))
        return _decoder(content, kind).decode(payload)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        # Not chained: pydantic's errors quote the value.
        raise UnstorableValueError(
            f"the stored {content} is no {getattr(kind, '__name__', kind)} ({type(error).__name__})"
        ) from None


def fits(content: Content, payload: bytes | str, kind: Any = None) -> bool:
    """Whether `decode` gives a value."""
    if content != "stream" and (kind is None or kind is Any):
        return True
    try:
        decode(content, payload, kind)
    except UnstorableValueError:
        return False
    return True


@functools.lru_cache(maxsize=512)
def _decoder(content: Content, kind: Any) -> Any:
    return (msgspec.msgpack if content == "msgpack" else msgspec.json).Decoder(kind)
