"""Setting the peers up, where that takes more than a constructor."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from litellm.caching.caching import Cache

# Without this, importing litellm waits for the network.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"


@functools.cache
def litellm_cache() -> Cache:
    """litellm's cache, in its default mode (in memory), large enough for every row."""
    from litellm.caching.caching import Cache
    from litellm.caching.in_memory_cache import InMemoryCache

    cache = Cache()
    cache.max_messages = None  # by default it ignores requests of more than a few messages
    cache.cache = InMemoryCache(max_size_in_memory=1_000_000, default_ttl=3600)
    return cache
