"""What the folder of a sentence encoder says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmcache_fast._errors import ConfigurationError
from llmcache_fast.semantic.embedders.folder import ModelFolder


def folder(path: Path, weights: str = "model.safetensors", /, **files: Any) -> ModelFolder:
    (path / weights).parent.mkdir(parents=True, exist_ok=True)
    (path / weights).write_bytes(b"weights")
    for name, content in files.items():
        place = path / (name.replace("__", "/") + ".json")
        place.parent.mkdir(exist_ok=True)
        place.write_text(json.dumps(content))
    return ModelFolder(path)


@pytest.mark.parametrize(
    "weights", ["model.onnx", "onnx/model.onnx", "model.safetensors", "pytorch_model.bin"]
)
def test_weights_are_found(tmp_path: Path, weights: str) -> None:
    assert folder(tmp_path, weights).weights == tmp_path / weights


def test_a_ready_graph_goes_before_plain_weights(tmp_path: Path) -> None:
    folder(tmp_path, "model.safetensors")
    assert folder(tmp_path, "model.onnx").weights.name == "model.onnx"


def test_what_is_no_folder_of_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is no folder"):
        ModelFolder(tmp_path / "absent")
    with pytest.raises(ConfigurationError, match=r"holds none of model\.onnx"):
        ModelFolder(tmp_path)
    (tmp_path / "modules.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"modules\.json: cannot be read: JSONDecodeError"):
        folder(tmp_path)


def test_how_much_of_a_text_is_read(tmp_path: Path) -> None:
    assert folder(tmp_path / "a").max_tokens() == 512
    config = {"max_position_embeddings": 384}
    assert folder(tmp_path / "b", config=config).max_tokens() == 384
    own = {"max_seq_length": 256}
    assert folder(tmp_path / "c", config=config, sentence_bert_config=own).max_tokens() == 256
    assert (
        folder(tmp_path / "d", config=config, sentence_bert_config={"max_seq_length": None}).max_tokens()
        == 384
    )


def test_how_tokens_become_one_vector(tmp_path: Path) -> None:
    assert folder(tmp_path / "a").pooling() == "mean"
    mean: Any = {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True, "include_prompt": True}
    assert folder(tmp_path / "b", **{"1_Pooling__config": mean}).pooling() == "mean"
    cls: Any = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    assert folder(tmp_path / "c", **{"1_Pooling__config": cls}).pooling() == "cls"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"1_Pooling__config": {"pooling_mode_max_tokens": True}}, "pools by pooling_mode_max_tokens"),
        ({"1_Pooling__config": {"pooling_mode_mean_tokens": False}}, "pools by nothing"),
        ({"modules": [{"type": "sentence_transformers.models.Dense"}]}, r"not known here \(Dense\)"),
    ],
)
def test_what_is_not_known_is_refused(tmp_path: Path, files: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        folder(tmp_path, **files).pooling()


def test_the_digest_is_of_the_files_and_not_of_their_place(tmp_path: Path) -> None:
    one, same = folder(tmp_path / "a"), folder(tmp_path / "b")
    others = [
        folder(tmp_path / "c", "model.onnx"),
        folder(tmp_path / "d", tokenizer={}),
        folder(tmp_path / "e", config={}),
        folder(tmp_path / "f", modules=[]),
    ]
    (tmp_path / "c" / "model.onnx").write_bytes(b"other weights")
    assert one.digest() == same.digest()
    digests = [one.digest(), one.digest("a"), one.digest("a", ""), *(other.digest() for other in others)]
    assert len(set(digests)) == len(digests)
    assert {len(digest) for digest in digests} == {16}
