"""The graph of a BERT network computes what the network is defined to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from llmcache_fast._errors import ConfigurationError
from llmcache_fast.semantic.embedders.bert import sentence_encoder
from tests.unit.semantic import models

TEXTS = ["a b c", "d", "a j i h g f e d c b", "unknown a"]


def run(graph: bytes, texts: list[str]) -> Any:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    rows = [models.tokens(text) for text in texts]
    ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
    mask = np.zeros_like(ids)
    for at, row in enumerate(rows):
        ids[at, : len(row)] = row
        mask[at, : len(row)] = 1
    return session.run(["sentence"], {"input_ids": ids, "attention_mask": mask})[0]


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_it_computes_what_numpy_does(tmp_path: Path, pooling: Any) -> None:
    found = run(sentence_encoder(models.make(tmp_path), pooling), TEXTS)
    expected = np.array([models.reference(text, pooling) for text in TEXTS])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_padding_changes_nothing(tmp_path: Path) -> None:
    graph = sentence_encoder(models.make(tmp_path))
    np.testing.assert_allclose(run(graph, TEXTS)[1], run(graph, TEXTS[1:2])[0], atol=1e-6)


def test_weights_may_be_halves_or_bear_the_name_of_the_network(tmp_path: Path) -> None:
    plain = run(sentence_encoder(models.make(tmp_path / "a")), TEXTS)
    named = run(sentence_encoder(models.make(tmp_path / "b", prefix="bert.")), TEXTS)
    halves = run(sentence_encoder(models.make(tmp_path / "c", half=True)), TEXTS)
    np.testing.assert_allclose(named, plain, atol=1e-6)
    np.testing.assert_allclose(halves, plain, atol=2e-2)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "roberta"}, "model_type 'roberta'"),
        ({"hidden_act": "relu"}, "hidden_act 'relu'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key'"),
        ({"num_hidden_layers": 3}, r"has no encoder\.layer\.2\."),
    ],
)
def test_another_network_is_refused(tmp_path: Path, config: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        sentence_encoder(models.make(tmp_path, **config))


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    models.make(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(ConfigurationError, match=r"model\.safetensors cannot be read"):
        sentence_encoder(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"config\.json that can be read"):
        sentence_encoder(tmp_path)
