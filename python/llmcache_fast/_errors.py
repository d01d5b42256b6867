"""Every exception the package raises.

::

    LLMCacheError
    +-- ConfigurationError (also ValueError)      an option that cannot work: what, where, what to do
    +-- UnkeyableRequestError (also ValueError)   a request without a canonical form
    +-- UnstorableValueError (also TypeError)     a value that `set` cannot store
    +-- CacheClosedError (also RuntimeError)      used outside `async with`, after `aclose`, in a forked child
    +-- NotCachedError (also LookupError)         `only_if_cached` and nothing is
    +-- FlightError
    |   +-- ComputationError                      the computation failed; `__cause__` is its exception
    |   +-- FlightCancelled                       the computation was cancelled or cancelled itself
    |   +-- FlightDeadlineExceeded (TimeoutError) the computation did not end in time
    |   +-- ReentrancyError (RuntimeError)        a computation waits for itself
    +-- WaitTimeoutError (also TimeoutError)      this caller's own `timeout` ended; the flight goes on
    +-- EmbeddingError                            a text got no vector: no semantic match
    +-- TierError
        +-- TierUnavailableError                  a tier that cannot be used at all: refused, foreign, corrupt
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial


class LLMCacheError(Exception):
    """Base of all exceptions of this package."""


class ConfigurationError(LLMCacheError, ValueError):
    """An option has a value that cannot work."""


class UnkeyableRequestError(LLMCacheError, ValueError):
    """A request has no canonical form.

    `reason` says what is wrong and what to do, `path` where: `messages[3].content`, or an empty string for
    the request itself. Neither holds text of the request beyond field names.
    """

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(f"{path or 'the request'}: {reason}")
        self.reason = reason
        self.path = path

    def __reduce__(self) -> tuple[type[UnkeyableRequestError], tuple[str, str]]:
        return type(self), (self.reason, self.path)


class UnstorableValueError(LLMCacheError, TypeError):
    """A value cannot be stored so that a hit returns the same again."""


class CacheClosedError(LLMCacheError, RuntimeError):
    """The cache is not open: use it inside `async with`."""


class NotCachedError(LLMCacheError, LookupError):
    """`only_if_cached` was asked and there is no entry."""


class FlightError(LLMCacheError):
    """A computation did not give a value."""


class ComputationError(FlightError):
    """The computation raised; `__cause__` is what it raised.

    Raised only when the original exception cannot be given to each waiter as an instance of its own.
    """


class FlightCancelled(FlightError):  # noqa: N818 - the semantics name it so
    """The computation was cancelled, or raised a cancellation itself."""


class FlightDeadlineExceeded(FlightError, TimeoutError):  # noqa: N818 - the semantics name it so
    """The computation did not end within the cache's `deadline`."""


class ReentrancyError(FlightError, RuntimeError):
    """A computation waits, directly or through others, for its own result."""


class WaitTimeoutError(LLMCacheError, TimeoutError):
    """The caller's own `timeout` ended. The computation goes on for the others."""


class EmbeddingError(LLMCacheError):
    """A text got no vector. Callers of the cache never see it: there is no semantic match then.

    `embedder` is its name, `reason` a short stable name of the cause (`failed`, `invalid`, `no_vector`,
    `timeout`, `busy`, `open`, `closed`), `message` the sentence. None holds text that was to be embedded.
    """

    def __init__(self, message: str, *, embedder: str = "", reason: str = "") -> None:
        super().__init__(f"embedder {embedder}: {message}" if embedder else message)
        self.message = message
        self.embedder = embedder
        self.reason = reason

    def again(self) -> EmbeddingError:
        """A new exception of the same facts, for another waiter of the same call."""
        return type(self)(self.message, embedder=self.embedder, reason=self.reason)

    def __reduce__(self) -> tuple[Callable[[], EmbeddingError], tuple[()]]:
        return partial(type(self), self.message, embedder=self.embedder, reason=self.reason), ()


class TierError(LLMCacheError):
    """A tier failed. Callers of the cache never see it: it is counted and logged.

    `tier` is the tier's name, `operation` what was asked of it, `reason` a short stable name of the cause
    (`busy`, `full`, `corrupt`, ...), `message` the sentence without the other three.
    """

    def __init__(self, message: str, *, tier: str = "", operation: str = "", reason: str = "") -> None:
        super().__init__(f"{tier}.{operation}: {message}" if tier else message)
        self.message = message
        self.tier = tier
        self.operation = operation
        self.reason = reason

    def again(self) -> TierError:
        """A new exception of the same facts, for another waiter of the same failed operation."""
        return type(self)(self.message, tier=self.tier, operation=self.operation, reason=self.reason)

    def __reduce__(self) -> tuple[Callable[[], TierError], tuple[()]]:
        build = partial(
            type(self), self.message, tier=self.tier, operation=self.operation, reason=self.reason
        )
        return build, ()


class TierUnavailableError(TierError):
    """A tier that cannot be used at all."""
