"""Models of the sentence-transformers library, for those who have it and torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from llmcache_fast._errors import ConfigurationError
from llmcache_fast.semantic.embedder import check
from llmcache_fast.semantic.embedders.folder import ModelFolder
from llmcache_fast.semantic.embedders.worker import Worker


class SentenceTransformerEmbedder:
    """Asks a `SentenceTransformer`, in a worker thread, one call at a time.

        embedder = SentenceTransformerEmbedder("/srv/models/gte-base")
        embedder = SentenceTransformerEmbedder(model, version="2026-11")

    The library takes the beginning of a text that is too long for the model. Prefer `OnnxEmbedder` where it
    can run the model: torch is two gigabytes and slower for short texts.
    """

    def __init__(self, model: Any, *, version: str | None = None, device: str = "cpu") -> None:
        """`model` is a folder, or a model that is loaded; of the latter say the `version`. Nothing is
        downloaded.

        Raises:
            ConfigurationError: the library is missing, or the folder cannot be used.
        """
        if isinstance(model, (str, Path)):
            folder = ModelFolder(model)
            version = version or folder.digest()
            model = _loaded(folder, device)
        elif version is None:
            raise ConfigurationError("version: say which version of the model this is")
        dimension = getattr(model, "get_sentence_embedding_dimension", None)
        if dimension is None or not callable(getattr(model, "encode", None)):
            raise ConfigurationError("model: must be a folder, or a SentenceTransformer")
        self.name = "sentence-transformers"
        self.version = version
        self.dimension: int = dimension()
        self._model = model
        self._worker = Worker()
        check(self)

    async def embed(self, texts: Sequence[str]) -> Any:
        encode = partial(self._model.encode, list(texts), convert_to_numpy=True, show_progress_bar=False)
        return await self._worker.run(encode)

    def __repr__(self) -> str:
        return f"SentenceTransformerEmbedder(version={self.version!r}, dimension={self.dimension})"


def _loaded(folder: ModelFolder, device: str) -> Any:
    try:
        from sentence_transformers import SentenceTransformer
    except ModuleNotFoundError as missing:
        raise ConfigurationError(
            f"SentenceTransformerEmbedder needs {missing.name}, which is not installed: "
            "pip install sentence-transformers"
        ) from missing
    return SentenceTransformer(str(folder.path), device=device, local_files_only=True)
