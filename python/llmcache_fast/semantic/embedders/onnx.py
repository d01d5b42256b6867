"""A sentence encoder in a local folder, run by ONNX Runtime: no torch, no network.

What belongs here: tokens, batches and the session. What does not: the network itself (`bert`, or the folder's
own `model.onnx`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from llmcache_fast._errors import ConfigurationError
from llmcache_fast.semantic.embedders.folder import ModelFolder
from llmcache_fast.semantic.embedders.worker import Worker

ROWS = 16
"""Texts that run together, of near length. Of 64 questions at once one took 0.60 of what it takes alone with
16, 0.62 with 8 and 32, 0.61 with 64 (benches/test_embedding.py), and small batches leave less padding."""

_LONGEST_TOKEN = 64
"""Characters a token has at the most, on the average of any text that says something: a document of a hundred
pages is not taken apart in order to find it too long."""


class OnnxEmbedder:
    """Vectors of the model in `folder`, made in a worker thread.

        embedder = OnnxEmbedder("/srv/models/bge-small-en-v1.5")

    The folder has a `tokenizer.json`, and `model.onnx`, or the `model.safetensors` and `config.json` of a
    plain BERT network (MiniLM, BGE, E5, GTE of the first generation). `pip install 'llmcache-fast[minilm]'`
    brings what runs it.
    """

    precision = "float32"

    def __init__(
        self,
        folder: str | Path,
        *,
        threads: int = 1,
        max_tokens: int | None = None,
        truncate: bool = False,
        prefix: str = "",
        name: str = "onnx",
    ) -> None:
        """Loads the model, which takes a second or three: make it where the program starts.

        `threads` are the processors one batch may use; batches run one after another. A text of more than
        `max_tokens` (the model's own bound, unless you set a lower one) gets no vector: two texts that differ
        after it would get the same. `truncate=True` takes the beginning for the whole. `prefix` goes before
        each text, for models that were trained with one.

        Raises:
            ConfigurationError: a library is missing, or the folder cannot be used.
        """
        if threads < 1:
            raise ConfigurationError(f"threads: must be at least 1, not {threads}")
        model = ModelFolder(folder)
        most = model.max_tokens()
        if max_tokens is not None and not 3 <= max_tokens <= most:
            raise ConfigurationError(f"max_tokens: must be from 3 to {most}, the model's own bound")
        self._max_tokens = max_tokens or most
        self._truncate = truncate
        self._prefix = prefix
        self._tokenizer = _tokenizer(model)
        if truncate:
            self._tokenizer.enable_truncation(self._max_tokens)
        self._network = _Network(model, threads)
        self._worker = Worker()
        self.name = name
        cut = f"first {self._max_tokens}" if truncate else "whole"
        self.version = model.digest(cut, prefix)
        self.dimension: int = self._network.dimension

    async def embed(self, texts: Sequence[str]) -> Any:
        return await self._worker.run(partial(self._embed, list(texts)))

    def _embed(self, texts: list[str]) -> Any:
        import numpy as np

        vectors = np.zeros((len(texts), self.dimension), np.float32)
        tokens = [self._tokens(text) for text in texts]
        for rows in _batches(tokens):
            longest = max(len(tokens[row]) for row in rows)
            ids = np.zeros((len(rows), longest), np.int64)
            mask = np.zeros((len(rows), longest), np.int64)
            for at, row in enumerate(rows):
                ids[at, : len(tokens[row])] = tokens[row]
                mask[at, : len(tokens[row])] = 1
            vectors[rows] = self._network.run(ids, mask)
        return vectors

    def _tokens(self, text: str) -> list[int]:
        """Of the text; none if it is longer than the model reads."""
        if len(text) > _LONGEST_TOKEN * self._max_tokens and not self._truncate:
            return []
        ids: list[int] = self._tokenizer.encode(self._prefix + text).ids
        return ids if len(ids) <= self._max_tokens else []

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, version={self.version!r}, dimension={self.dimension})"


def _batches(tokens: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Numbers of the texts that have tokens, those of near length together: little is spent on padding."""
    order = sorted((row for row in range(len(tokens)) if tokens[row]), key=lambda row: len(tokens[row]))
    for start in range(0, len(order), ROWS):
        yield order[start : start + ROWS]


class _Network:
    """A session of ONNX Runtime, which lets go of the interpreter lock while it runs."""

    def __init__(self, model: ModelFolder, threads: int) -> None:
        runtime = _needed("onnxruntime")
        pooling = model.pooling()
        source: bytes | str
        if model.weights.suffix == ".onnx":
            source = str(model.weights)
        elif model.weights.suffix == ".safetensors":
            source = _built(model, pooling)
        else:
            raise ConfigurationError(
                f"{model.path}: {model.weights.name} is loaded by torch alone; export the model to "
                "model.onnx or model.safetensors, or use SentenceTransformerEmbedder"
            )
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads that wait for work do not keep a processor busy that the service needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = runtime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ConfigurationError(
                f"{model.weights}: ONNX Runtime cannot load it: {type(error).__name__}"
            ) from error
        self._pooling = pooling
        self._inputs = {node.name for node in self._session.get_inputs()}
        known = {"input_ids", "attention_mask", "token_type_ids"}
        outputs = [node for node in self._session.get_outputs() if len(node.shape) in (2, 3)]
        if not outputs or not {"input_ids"} <= self._inputs <= known:
            raise ConfigurationError(
                f"{model.weights}: takes {', '.join(sorted(self._inputs))}; a sentence encoder takes "
                "input_ids, attention_mask, perhaps token_type_ids, and returns vectors of texts or tokens"
            )
        output = min(outputs, key=lambda node: len(node.shape))
        self._output = output.name
        if not isinstance(output.shape[-1], int):
            raise ConfigurationError(
                f"{model.weights}: does not say the dimension of its output {output.name}"
            )
        self.dimension: int = output.shape[-1]

    def run(self, ids: Any, mask: Any) -> Any:
        """Vectors of the texts of these tokens."""
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": ids * 0}
        (found,) = self._session.run([self._output], {name: given[name] for name in self._inputs})
        if found.ndim == 2:
            return found
        if self._pooling == "cls":
            return found[:, 0]
        # The mean points where the sum does, and only its direction counts.
        return (found * mask[:, :, None]).sum(axis=1)


def _built(model: ModelFolder, pooling: Any) -> bytes:
    for library in ("numpy", "onnx", "safetensors"):
        _needed(library)
    from llmcache_fast.semantic.embedders.bert import sentence_encoder

    return sentence_encoder(model.path, pooling)


def _tokenizer(model: ModelFolder) -> Any:
    tokenizers = _needed("tokenizers")
    if not model.tokenizer.is_file():
        raise ConfigurationError(f"{model.path}: holds no tokenizer.json")
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(model.tokenizer))
    except Exception as error:
        raise ConfigurationError(f"{model.tokenizer}: cannot be read: {type(error).__name__}") from error
    # The file may bound and pad texts in its own way.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _needed(library: str) -> Any:
    from importlib import import_module

    try:
        return import_module(library)
    except ModuleNotFoundError as missing:
        raise ConfigurationError(
            f"the embedder needs {missing.name}, which is not installed: pip install 'llmcache-fast[minilm]'"
        ) from missing
