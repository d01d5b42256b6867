"""Models of sentence-transformers, by a double: the library brings torch and is not installed."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from llmcache_fast._errors import ConfigurationError
from llmcache_fast.semantic import SentenceTransformerEmbedder
from tests.unit.semantic import models


class Model:
    """As a `SentenceTransformer` is."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.made = (args, options)
        self.threads: set[int] = set()

    def get_sentence_embedding_dimension(self) -> int:
        return 2

    def encode(self, sentences: list[str], *, convert_to_numpy: bool, show_progress_bar: bool) -> Any:
        assert (convert_to_numpy, show_progress_bar) == (True, False)
        self.threads.add(threading.get_ident())
        return np.array([[len(text), 1] for text in sentences], np.float32)


async def test_it_asks_the_model_in_a_worker_thread() -> None:
    model = Model()
    embedder = SentenceTransformerEmbedder(model, version="1")
    found = await embedder.embed(["a", "bcd"])
    assert found.tolist() == [[1, 1], [3, 1]]
    assert threading.get_ident() not in model.threads
    assert repr(embedder) == "SentenceTransformerEmbedder(version='1', dimension=2)"


def test_a_folder_is_loaded_and_nothing_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library: Any = ModuleType("sentence_transformers")
    made: list[Model] = []

    def load(*args: Any, **options: Any) -> Model:
        made.append(Model(*args, **options))
        return made[-1]

    library.SentenceTransformer = load
    monkeypatch.setitem(sys.modules, "sentence_transformers", library)
    folder = models.make(tmp_path / "model")
    embedder = SentenceTransformerEmbedder(folder)
    assert made[0].made == ((str(folder),), {"device": "cpu", "local_files_only": True})
    assert len(embedder.version) == 16
    assert SentenceTransformerEmbedder(folder, version="mine").version == "mine"


def test_what_cannot_work_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="version: say which"):
        SentenceTransformerEmbedder(Model())
    with pytest.raises(ConfigurationError, match="model: must be a folder"):
        SentenceTransformerEmbedder(object(), version="1")
    with pytest.raises(ConfigurationError, match="is no folder"):
        SentenceTransformerEmbedder(tmp_path / "absent")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ConfigurationError, match="pip install sentence-transformers"):
        SentenceTransformerEmbedder(models.make(tmp_path / "model"))
