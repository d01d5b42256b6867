"""A sentence encoder in a folder: tokens, batches, what it refuses."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import onnx
import pytest

from llmcache_fast._errors import ConfigurationError
from llmcache_fast.semantic import OnnxEmbedder
from llmcache_fast.semantic.embedder import space_of
from llmcache_fast.semantic.embedders.bert import sentence_encoder
from llmcache_fast.semantic.embedders.onnx import ROWS
from tests.unit.semantic import models

TEXTS = ["a b c", "d", "a j i h g f e d c b", "unknown a", ""]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return models.make(tmp_path / "model")


@pytest.mark.parametrize(("mode", "pooling"), [("mean_tokens", "mean"), ("cls_token", "cls")])
async def test_plain_weights_are_enough(folder: Path, mode: str, pooling: str) -> None:
    embedder = OnnxEmbedder(models.pool(folder, mode))
    found = await embedder.embed(TEXTS)
    assert (found.dtype, found.shape, embedder.dimension) == (np.float32, (5, 8), 8)
    np.testing.assert_allclose(found, [models.reference(text, pooling) for text in TEXTS], atol=1e-5)


async def test_a_ready_graph_is_run(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(sentence_encoder(folder))
    (folder / "model.safetensors").unlink()
    found = await OnnxEmbedder(folder).embed(TEXTS)
    np.testing.assert_allclose(found, [models.reference(text) for text in TEXTS], atol=1e-5)


@pytest.mark.parametrize("mode", ["mean_tokens", "cls_token"])
async def test_a_graph_of_vectors_of_tokens_is_pooled(folder: Path, mode: str) -> None:
    whole = onnx.load_from_string(sentence_encoder(folder))
    # As exports are: the last hidden state is the output, and segments are an input.
    last = [node.output[0] for node in whole.graph.node if node.op_type == "LayerNormalization"][-1]
    del whole.graph.output[:]
    output = onnx.helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, ["batch", "tokens", 8])
    whole.graph.output.append(output)
    whole.graph.input.append(
        onnx.helper.make_tensor_value_info("token_type_ids", onnx.TensorProto.INT64, ["batch", "tokens"])
    )
    (folder / "model.onnx").write_bytes(whole.SerializeToString())
    found = await OnnxEmbedder(models.pool(folder, mode)).embed(TEXTS)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    expected = [models.reference(text, "cls" if mode == "cls_token" else "mean") for text in TEXTS]
    np.testing.assert_allclose(found, expected, atol=1e-5)


async def test_together_is_as_one_by_one(folder: Path) -> None:
    embedder = OnnxEmbedder(folder)
    texts = [" ".join("abcdefghij"[: 1 + number % 10]) for number in range(2 * ROWS + 5)]
    together = await embedder.embed(texts)
    alone = np.concatenate([await embedder.embed([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)


async def test_a_text_that_is_too_long_has_no_vector_unless_told(folder: Path) -> None:
    long = "a b c d e f g h i j a"  # 13 tokens with those around it, and the model reads 12
    exact = "a b c d e f g h i j"
    whole = await OnnxEmbedder(folder).embed([long, exact])
    assert not whole[0].any()
    (endless,) = await OnnxEmbedder(folder).embed(["a b c" + " " * 1000])
    assert not endless.any()
    np.testing.assert_allclose(whole[1], models.reference(exact), atol=1e-5)
    (cut,) = await OnnxEmbedder(folder, truncate=True).embed([long])
    np.testing.assert_allclose(cut, models.reference(exact), atol=1e-5)
    (short,) = await OnnxEmbedder(folder, truncate=True, max_tokens=5).embed([long])
    np.testing.assert_allclose(short, models.reference("a b c"), atol=1e-5)


async def test_a_prefix_goes_before_each_text(folder: Path) -> None:
    (found,) = await OnnxEmbedder(folder, prefix="j i ").embed(["a b"])
    np.testing.assert_allclose(found, models.reference("j i a b"), atol=1e-5)


async def test_nothing_asked_is_nothing_done(folder: Path) -> None:
    assert (await OnnxEmbedder(folder).embed([])).shape == (0, 8)


async def test_many_callers_share_one_thread(folder: Path) -> None:
    embedder = OnnxEmbedder(folder, threads=2)
    found: dict[int, Any] = {}

    async def ask(number: int) -> None:
        found[number] = (await embedder.embed([TEXTS[number % 3]]))[0]

    async with anyio.create_task_group() as group:
        for number in range(30):
            group.start_soon(ask, number)
    for number, vector in found.items():
        np.testing.assert_allclose(vector, models.reference(TEXTS[number % 3]), atol=1e-5)


async def test_a_cancelled_call_disturbs_no_later_one(folder: Path) -> None:
    embedder = OnnxEmbedder(folder)
    async with anyio.create_task_group() as group:
        group.start_soon(embedder.embed, TEXTS)
        await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    np.testing.assert_allclose(await embedder.embed(["d"]), [models.reference("d")], atol=1e-5)


def test_what_decides_a_vector_is_in_the_version_and_its_place_is_not(folder: Path, tmp_path: Path) -> None:
    spaces = [
        space_of(OnnxEmbedder(folder)),
        space_of(OnnxEmbedder(folder, truncate=True)),
        space_of(OnnxEmbedder(folder, truncate=True, max_tokens=5)),
        space_of(OnnxEmbedder(folder, prefix="query: ")),
        space_of(OnnxEmbedder(folder, name="mine")),
    ]
    assert len(set(spaces)) == len(spaces)
    assert space_of(OnnxEmbedder(models.make(tmp_path / "elsewhere"))) == spaces[0]
    assert repr(OnnxEmbedder(folder)).startswith("OnnxEmbedder('onnx', version='")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"threads": 0}, "threads: must be at least 1"),
        ({"max_tokens": 2}, "max_tokens: must be from 3 to 12"),
        ({"max_tokens": 13}, "max_tokens: must be from 3 to 12"),
    ],
)
def test_an_option_that_cannot_be_is_refused(folder: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        OnnxEmbedder(folder, **options)


def test_a_folder_that_cannot_be_used_is_refused(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ConfigurationError, match=r"model\.onnx: ONNX Runtime cannot load it"):
        OnnxEmbedder(folder)
    value = onnx.helper.make_tensor_value_info("pixels", onnx.TensorProto.FLOAT, ["batch", 3])
    node = onnx.helper.make_node("Identity", ["pixels"], ["out"])
    out = onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, ["batch", 3])
    opset = [onnx.helper.make_opsetid("", 20)]
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", [value], [out]), opset_imports=opset, ir_version=10
    )
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ConfigurationError, match=r"takes pixels; a sentence encoder takes"):
        OnnxEmbedder(folder)
    (folder / "model.onnx").unlink()
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"tokenizer\.json: cannot be read"):
        OnnxEmbedder(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ConfigurationError, match=r"holds no tokenizer\.json"):
        OnnxEmbedder(folder)


def test_weights_that_only_torch_reads_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ConfigurationError, match="loaded by torch alone"):
        OnnxEmbedder(folder)


@pytest.mark.parametrize("library", ["numpy", "onnxruntime", "tokenizers", "onnx", "safetensors"])
def test_a_missing_library_is_named_with_the_command_that_brings_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigurationError, match=rf"{library}.*pip install 'llmcache-fast\[minilm\]'"):
        OnnxEmbedder(folder)
