"""The LLM response cache for async Python services and agent orchestrators.

    async with LLMCache() as cache:
        reply = await cache.get_or_compute(request, call_model)

What belongs here: the public names. Everything with an underscore is the package's own.
"""

from __future__ import annotations

from llmcache_fast._cache import LLMCache
from llmcache_fast._core import fingerprint
from llmcache_fast._entry import CacheResult, Computed, Coverage, Erasure, Invalidation, SemanticMatch
from llmcache_fast._errors import (
    CacheClosedError,
    ComputationError,
    ConfigurationError,
    EmbeddingError,
    FlightCancelled,
    FlightDeadlineExceeded,
    FlightError,
    LLMCacheError,
    NotCachedError,
    ReentrancyError,
    TierError,
    TierUnavailableError,
    UnkeyableRequestError,
    UnstorableValueError,
    WaitTimeoutError,
)
from llmcache_fast._explain import Explanation
from llmcache_fast._options import UNSET
from llmcache_fast._secrecy import Secrecy
from llmcache_fast._stats import CacheStats
from llmcache_fast._streams import Recorder, StreamReader
from llmcache_fast._sync import SyncLLMCache
from llmcache_fast._usage import PriceTable, Usage
from llmcache_fast.semantic.options import Comparison, SemanticOptions

__all__ = [
    "UNSET",
    "CacheClosedError",
    "CacheResult",
    "CacheStats",
    "Comparison",
    "ComputationError",
    "Computed",
    "ConfigurationError",
    "Coverage",
    "EmbeddingError",
    "Erasure",
    "Explanation",
    "FlightCancelled",
    "FlightDeadlineExceeded",
    "FlightError",
    "Invalidation",
    "LLMCache",
    "LLMCacheError",
    "NotCachedError",
    "PriceTable",
    "Recorder",
    "ReentrancyError",
    "Secrecy",
    "SemanticMatch",
    "SemanticOptions",
    "StreamReader",
    "SyncLLMCache",
    "TierError",
    "TierUnavailableError",
    "UnkeyableRequestError",
    "UnstorableValueError",
    "Usage",
    "WaitTimeoutError",
    "fingerprint",
]
