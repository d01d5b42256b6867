"""What a request asks: its last user text, and the rest, in which two requests must be equal to be compared.

What belongs here: where the text stands in the requests of the known protocols; the name of a pair of texts.
What does not: what is made of it (`_semantics`), and the fingerprint of the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from llmcache_fast._errors import LLMCacheError
from llmcache_fast._request import plain

MAX_TEXT: Final = 8_000
"""Characters of a question. What is longer holds documents, and is compared as a whole or not at all."""

Attachment: TypeAlias = Literal["images", "tool_results"]
"""What may stand beside or behind the last user text when the caller says so; it must be equal then."""


class Question(NamedTuple):
    """A request, taken apart."""

    text: str
    rest: Any
    """The request without the text."""


Extract: TypeAlias = Callable[[Any], "tuple[str, Any] | None"]
"""What takes a request apart in its owner's own way; None: it asks nothing that could be compared."""

_TEXT_PARTS: Final = frozenset({"text", "input_text"})
_RESULT_PARTS: Final = frozenset({"tool_result", "function_call_output", "computer_call_output"})
_RESULT_ROLES: Final = frozenset({"tool", "function"})
# Unions that are written where they are asked for are made anew each time, which took half of the whole.
_OPEN: Final = (str, list, tuple, dict, type(None))
_ROW: Final = (list, tuple)
_FIELDS: Final = ("messages", "input", "prompt")
"""Where requests keep what is said: chat and messages; responses and embeddings; completions and others."""


def question_of(request: Any, also: Sequence[Attachment] = ()) -> Question | None:
    """The question of a request in the shape of a known protocol, or None: it is for exact look-ups alone.

    That is so for a request that ends in something else than a user's text: tool results, images, files, an
    answer that is to be continued. `also` lets those named be there, as a part of the rest.

    Costs a shallow copy of the request and of its last message.
    """
    try:
        fields = _opened(request)
        if not isinstance(fields, Mapping):
            return None
        name = next((name for name in _FIELDS if name in fields), None)
        if name == "input" and "embed" in str(fields.get("model", "")):
            return None  # the embedding of another text is another answer
        found = None if name is None else _said(_opened(fields[name]), also)
    except LLMCacheError:
        return None  # it has no fingerprint either, and whoever asks for that is told why
    if name is None or found is None:
        return None
    text, rest = found
    if not text.strip() or len(text) > MAX_TEXT:
        return None
    return Question(text, {**fields, name: rest})


def _opened(value: Any) -> Any:
    """One level of a dataclass, Struct or model as a builtin."""
    return value if isinstance(value, _OPEN) else plain(value)


def _said(said: Any, also: Sequence[Attachment]) -> tuple[str, Any] | None:
    """The last user text of a conversation, and the conversation without it."""
    if isinstance(said, str):
        return said, None
    if not isinstance(said, _ROW):
        return None
    for at in reversed(range(len(said))):
        message = _opened(said[at])
        if not isinstance(message, Mapping):
            return None
        parts = _opened(message.get("content"))
        results = _is_result(message) or (isinstance(parts, _ROW) and any(map(_is_result, parts)))
        if message.get("role") == "user" and not results:
            found = (parts, None) if isinstance(parts, str) else _of_parts(parts, also)
            if found is None:
                return None
            text, rest = found
            return text, [*said[:at], {**message, "content": rest}, *said[at + 1 :]]
        # Behind the question may stand what the tools gave, with the calls for it: for those who say so.
        if "tool_results" not in also or not (results or at < len(said) - 1):
            return None
    return None


def _is_result(part: Any) -> bool:
    """Whether a message, or a part of one, is what a tool gave."""
    opened = _opened(part)
    return isinstance(opened, Mapping) and (
        opened.get("role") in _RESULT_ROLES or opened.get("type") in _RESULT_PARTS
    )


def _of_parts(parts: Any, also: Sequence[Attachment]) -> tuple[str, Any] | None:
    """The only text among the parts of a message, and the others, which are images if they may be."""
    if not isinstance(parts, _ROW):
        return None
    opened = [_opened(part) for part in parts]
    if not all(isinstance(part, Mapping) for part in opened):
        return None
    texts = [at for at, part in enumerate(opened) if part.get("type") in _TEXT_PARTS]
    if len(texts) != 1 or (len(opened) > 1 and "images" not in also):
        return None
    [at] = texts
    text = opened[at].get("text")
    if not isinstance(text, str):
        return None
    return text, [*opened[:at], {**opened[at], "text": None}, *opened[at + 1 :]]


def pair_of(partition: bytes, one: bytes, two: bytes) -> bytes:
    """32 bytes that name two questions of a partition, by the digests of their texts, in either order."""
    first, second = (one, two) if one <= two else (two, one)
    return hashlib.blake2b(partition + first + second, digest_size=32, person=b"llmcache pair").digest()
