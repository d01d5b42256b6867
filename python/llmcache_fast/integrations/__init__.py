"""Drop-in clients: one file per client or framework, and `wire/` for what they share about protocols.

What belongs here: adapters between a foreign interface and `LLMCache`. What does not: cache logic, and any
import of a foreign library at import time: each file finds the library through the object it is given.
"""

from __future__ import annotations

from llmcache_fast.integrations.clients import wrap

__all__ = ["wrap"]
