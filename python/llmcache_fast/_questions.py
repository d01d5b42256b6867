"""Questions taken apart: those that calls ask, and those that entries answer.

What belongs here: which text a call asks by and which partition it is of; remembering what was taken apart,
because what is asked often is judged often. What does not: where a text stands in a request
(`semantic.asked`), vectors (`semantic.embedding`), decisions (`_semantics`).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from functools import partial
from typing import Any, Final, Generic, NamedTuple, TypeVar

from llmcache_fast._core import Engine, Question
from llmcache_fast._options import CallOptions
from llmcache_fast.semantic.asked import question_of
from llmcache_fast.semantic.options import SemanticOptions
from llmcache_fast.semantic.vector_cache import digest_of

ROOM: Final = 1 << 19
"""Characters of the questions of calls that are kept taken apart, and as many of entries: 7 to 9 MB each,
4,000 short questions or 900 of 500 characters. Taking one of these apart takes 22 us."""
OVERHEAD: Final = 70
"""Characters that a question counts beside its own. Measured: 2.1 KB for 60 characters, 8.2 KB for 500."""


class Subject(NamedTuple):
    """What a call is about."""

    key: bytes
    """The fingerprint of the request."""
    request: Any
    namespace: str
    profile: str | None
    variant: str | int | None
    options: CallOptions


class Asked(NamedTuple):
    """What a call asks."""

    text: str
    digest: bytes
    """Of the text: see `semantic.vector_cache.digest_of`."""
    question: Question
    """The text taken apart."""
    partition: bytes
    """Entries of others are none that could answer it."""


class Stored(NamedTuple):
    """What an entry answers."""

    text: str
    digest: bytes
    question: Question


T = TypeVar("T", Asked, Stored)


class _Kept(Generic[T]):
    """Questions by fingerprint, while there is room; the least recently used goes first."""

    def __init__(self) -> None:
        self._questions: OrderedDict[bytes, T] = OrderedDict()
        self._used = 0

    def get(self, key: bytes) -> T | None:
        kept = self._questions.get(key)
        if kept is not None:
            self._questions.move_to_end(key)
        return kept

    def put(self, key: bytes, question: T) -> None:
        before = self._questions.pop(key, None)
        self._used += len(question.text) + OVERHEAD
        if before is not None:
            self._used -= len(before.text) + OVERHEAD
        self._questions[key] = question
        while self._used > ROOM:
            _, dropped = self._questions.popitem(last=False)
            self._used -= len(dropped.text) + OVERHEAD

    def clear(self) -> None:
        self._questions.clear()
        self._used = 0


class Questions:
    """Takes apart what is asked, and what the candidates answer."""

    def __init__(self, engine: Engine, options: SemanticOptions, space: bytes) -> None:
        """`space`: see `semantic.embedder.space_of`."""
        self._engine = engine
        self._space = space
        self._extract = options.question or partial(question_of, also=options.also)
        self._remembers = options.question is None
        """The fingerprint says what a request asks, unless its owner takes it apart by something else."""
        self._asked: _Kept[Asked] = _Kept()
        self._stored: _Kept[Stored] = _Kept()

    def asked(self, subject: Subject) -> Asked | None:
        """What a call asks; None: it is for exact look-ups alone. Raises what is wrong with the request."""
        key, request, namespace, profile, variant, options = subject
        given = options.question
        remembers = given is None and self._remembers
        if given is None and isinstance(request, bytes):
            return None
        if remembers and (kept := self._asked.get(key)) is not None:
            return kept
        found: tuple[str, Any] | None = (
            self._extract(request) if given is None else given(self._extract) if callable(given) else given
        )
        if found is None:
            return None
        text, rest = found
        remainder = self._engine.fingerprint(rest, namespace=namespace, profile=profile, variant=variant)
        asked = Asked(text, digest_of(text), Question(text), self._partition(remainder))
        # Behind a stale answer a request is taken apart later than its key was made: it may have changed.
        if remembers and key == self._engine.fingerprint(
            request, namespace=namespace, profile=profile, variant=variant
        ):
            self._asked.put(key, asked)
        return asked

    def stored(self, key: bytes, text: str) -> Stored:
        """What the entry of a fingerprint answers."""
        kept = self._stored.get(key)
        if kept is not None and kept.text == text:
            return kept
        stored = Stored(text, digest_of(text), Question(text))
        self._stored.put(key, stored)
        return stored

    def forget(self) -> None:
        """Drop all texts that are kept."""
        self._asked.clear()
        self._stored.clear()

    def _partition(self, remainder: bytes) -> bytes:
        # With the embedder: vectors of different ones say nothing of each other.
        return hashlib.blake2b(remainder + self._space, digest_size=32, person=b"llmcache rest").digest()
