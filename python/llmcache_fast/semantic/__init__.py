"""Matching by meaning: what a text's vector is, and what may be answered because of it.

What belongs here: embedders, vectors, and what decides on a match. What does not: requests, entries and tiers
(the layers above put them together). Names are imported when they are asked for: no embedder's library is
loaded by `import llmcache_fast`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmcache_fast.semantic.embedder import Embedder
    from llmcache_fast.semantic.embedders.callables import CallableEmbedder
    from llmcache_fast.semantic.embedders.endpoint import OpenAIEmbedder
    from llmcache_fast.semantic.embedders.minilm import MiniLMEmbedder
    from llmcache_fast.semantic.embedders.ngram import NGramEmbedder
    from llmcache_fast.semantic.embedders.onnx import OnnxEmbedder
    from llmcache_fast.semantic.embedders.sentence import SentenceTransformerEmbedder

__all__ = [
    "CallableEmbedder",
    "Embedder",
    "MiniLMEmbedder",
    "NGramEmbedder",
    "OnnxEmbedder",
    "OpenAIEmbedder",
    "SentenceTransformerEmbedder",
]

_HOMES = {
    "CallableEmbedder": "embedders.callables",
    "Embedder": "embedder",
    "MiniLMEmbedder": "embedders.minilm",
    "NGramEmbedder": "embedders.ngram",
    "OnnxEmbedder": "embedders.onnx",
    "OpenAIEmbedder": "embedders.endpoint",
    "SentenceTransformerEmbedder": "embedders.sentence",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
