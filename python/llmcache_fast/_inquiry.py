"""One call's way to a semantic hit: what it asks, what came nearest, and the comparison afterwards.

What belongs here: the state of one call. What does not: what all calls share (`_semantics`).
"""

from __future__ import annotations

from collections.abc import Callable

from llmcache_fast._answer import Landing
from llmcache_fast._entry import Entry, Facet
from llmcache_fast._questions import Asked, Subject
from llmcache_fast._semantics import Nearest, Semantics


class Inquiry:
    """A call that may be given the answer to another question. Nothing is done before it is asked for."""

    __slots__ = ("_asked", "_looked", "_nearest", "_searched", "_semantics", "_subject", "_taken", "_vector")

    def __init__(self, semantics: Semantics, subject: Subject) -> None:
        self._semantics = semantics
        self._subject = subject
        self._taken = self._looked = self._searched = False
        self._asked: Asked | None = None
        self._vector: bytes | None = None
        self._nearest: Nearest | None = None

    @property
    def check(self) -> bool:
        """Whether the provider is to be asked although there is an answer, to compare the two."""
        return self._nearest is not None and self._nearest.check

    async def facet(self) -> Facet | None:
        """What the call's own entry is to be found by; costs an embedding, once."""
        vector = await self._look()
        if vector is None or self._asked is None:
            return None
        return self._semantics.facet(self._asked, vector)

    async def find_at_once(self, is_answer: Callable[[Entry], bool]) -> Landing | None:
        """What `find` returns, where nothing has to be waited for and nothing is to be checked: then no
        flight is needed."""
        if not self._looked:
            if self._semantics.waits:
                return None
            try:
                asked = self._take_apart()
            except Exception:  # noqa: BLE001 - `facet` meets it again
                return None
            self._vector = None if asked is None else self._semantics.known(asked)
            if self._vector is None:
                return None
            self._looked = True
        landing = await self.find(is_answer)
        return None if self.check else landing

    async def find(self, is_answer: Callable[[Entry], bool]) -> Landing | None:
        """The answer to a question that asks the same, if one may be served. Looks once."""
        vector = self._vector if self._looked else await self._look()
        if vector is None or self._asked is None:
            return None
        if not self._searched:
            self._searched = True
            try:
                self._nearest = await self._semantics.find(self._asked, vector, self._subject, is_answer)
            except Exception as error:  # noqa: BLE001 - the provider can serve the call all the same
                self._semantics.failed("looking for an answer", error)
        nearest = self._nearest
        if nearest is None or not nearest.match.served:
            return None
        return Landing(nearest.entry, None, "semantic", nearest.tier, nearest.match)

    def _take_apart(self) -> Asked | None:
        if not self._taken:
            self._asked = self._semantics.asked(self._subject)
            self._taken = True
        return self._asked

    async def _look(self) -> bytes | None:
        """The vector of what is asked."""
        if not self._looked:
            self._looked = True
            try:
                asked = self._take_apart()
                self._vector = None if asked is None else await self._semantics.vector(asked)
            except Exception as error:  # noqa: BLE001 - the provider can serve the call all the same
                self._semantics.failed("taking a request apart", error)
        return self._vector

    def abandon(self) -> None:
        """The check, if one was meant, is not made after all."""
        if self.check and self._nearest is not None:
            self._semantics.abandon(self._nearest.match)

    def computed(self, landing: Landing) -> Landing:
        """What became of the call after all, with what came nearest; compared with that, if it is to be."""
        nearest = self._nearest
        if nearest is None:
            return landing
        if (
            nearest.check
            and landing.status == "miss"
            and landing.entry is not None
            and self._asked is not None
        ):
            self._semantics.compare(self._asked, nearest, landing.entry)
        else:
            self.abandon()
        return landing._replace(semantic=nearest.match)
