"""The LLM response cache for async Python services and agent orchestrators."""

from __future__ import annotations

from llmcache_fast._core import fingerprint

__all__ = ["fingerprint"]
