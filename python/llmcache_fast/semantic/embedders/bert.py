"""The graph of a BERT sentence encoder, from the plain weights of its folder.

What belongs here: the network (Devlin et al. 2019, with the pooling of Reimers and Gurevych 2019) as an ONNX
graph, so that ONNX Runtime runs weights that come without one. What does not: tokens and batches (`onnx`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors import SafetensorError
from safetensors.numpy import load_file

from llmcache_fast._errors import ConfigurationError
from llmcache_fast.semantic.embedders.folder import Pooling

_OPSET = 20
_IR_VERSION = 10


class _Graph:
    """Nodes and initializers that are being put together."""

    def __init__(self, weights: dict[str, Any]) -> None:
        self._weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, name: str, value: Any) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        output = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def dense(self, x: str, name: str) -> str:
        """`x @ W.T + b`."""
        weight = self.constant(f"{name}.weight", self.weight(f"{name}.weight").T)
        return self.op("Add", self.op("MatMul", x, weight), self.given(f"{name}.bias"))

    def norm(self, x: str, name: str, epsilon: float) -> str:
        scale, bias = self.given(f"{name}.weight"), self.given(f"{name}.bias")
        return self.op("LayerNormalization", x, scale, bias, epsilon=epsilon, axis=-1)

    def given(self, name: str) -> str:
        return self.constant(name, self.weight(name))

    def weight(self, name: str) -> Any:
        try:
            return self._weights[name]
        except KeyError:
            raise ConfigurationError(f"model.safetensors: has no {name}; it is of another network") from None


def sentence_encoder(folder: Path, pooling: Pooling = "mean") -> bytes:
    """A model of inputs `input_ids` and `attention_mask`, int64 `[batch, tokens]`, and the output `sentence`,
    float32 `[batch, dimension]`: the mean over the tokens, or the first one, of unit length.

    Takes about a second and three times the weights' size in memory for a while.

    Raises:
        ConfigurationError: the folder holds another kind of network.
    """
    config = _configuration(folder)
    epsilon, heads = float(config["layer_norm_eps"]), int(config["num_attention_heads"])
    graph = _Graph(_weights(folder))
    mask = graph.op("Cast", "attention_mask", to=TensorProto.FLOAT)
    x = _embeddings(graph, epsilon)
    hidden = _hidden(graph, mask)
    for layer in range(int(config["num_hidden_layers"])):
        x = _layer(graph, x, hidden, f"encoder.layer.{layer}", heads, epsilon)
    _pooled(graph, x, mask, pooling)
    return _model(graph, int(config["hidden_size"]))


def _configuration(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{folder}: has no config.json that can be read") from error
    plain = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    for field, wanted in plain.items():
        found = config.get(field, "absolute" if field == "position_embedding_type" else None)
        if found != wanted:
            raise ConfigurationError(
                f"{folder}: config.json has {field} {found!r}, and only plain BERT ({wanted!r}) can be built "
                "from weights: export the model to model.onnx"
            )
    return config


def _weights(folder: Path) -> dict[str, Any]:
    """In float32, by the names of the encoder alone."""
    try:
        found = load_file(folder / "model.safetensors")
    except (OSError, SafetensorError, TypeError, KeyError) as error:
        raise ConfigurationError(f"{folder}: model.safetensors cannot be read as numbers") from error
    return {name.removeprefix("bert."): np.asarray(value, np.float32) for name, value in found.items()}


def _embeddings(graph: _Graph, epsilon: float) -> str:
    words = graph.op("Gather", graph.given("embeddings.word_embeddings.weight"), "input_ids")
    length = graph.op("Shape", "input_ids", start=1, end=2)
    start, step = graph.constant("zero", np.int64(0)), graph.constant("one", np.int64(1))
    scalar = graph.op("Squeeze", length)
    positions = graph.op("Range", start, scalar, step)
    places = graph.op("Gather", graph.given("embeddings.position_embeddings.weight"), positions)
    # One text is one segment.
    segment = graph.constant("segment", graph.weight("embeddings.token_type_embeddings.weight")[0])
    x = graph.op("Add", graph.op("Add", words, segment), places)
    return graph.norm(x, "embeddings.LayerNorm", epsilon)


def _hidden(graph: _Graph, mask: str) -> str:
    """What is added to the scores: 0 for tokens, and as good as minus infinity for the padding."""
    axes = graph.constant("axes_of_heads", np.array([1, 2], np.int64))
    wide = graph.op("Unsqueeze", mask, axes)
    ones, far = graph.constant("ones", np.float32(1)), graph.constant("far", np.float32(-1e9))
    return graph.op("Mul", graph.op("Sub", ones, wide), far)


def _layer(graph: _Graph, x: str, hidden: str, name: str, heads: int, epsilon: float) -> str:
    own = f"{name}.attention.self"
    size = graph.weight(f"{own}.query.weight").shape[0]
    scale = np.float32((size // heads) ** -0.5)
    # One product in place of three; the scale of the scores is in the queries.
    parts = [graph.weight(f"{own}.{part}.weight").T for part in ("query", "key", "value")]
    biases = [graph.weight(f"{own}.{part}.bias") for part in ("query", "key", "value")]
    parts[0], biases[0] = parts[0] * scale, biases[0] * scale
    weight = graph.constant(f"{own}.weight", np.concatenate(parts, axis=1))
    joint = graph.op(
        "Add", graph.op("MatMul", x, weight), graph.constant(f"{own}.bias", np.concatenate(biases))
    )
    shape = graph.constant(f"{own}.shape", np.array([0, 0, 3, heads, size // heads], np.int64))
    split = graph.op("Transpose", graph.op("Reshape", joint, shape), perm=[2, 0, 3, 1, 4])
    query, key, value = (
        graph.op("Gather", split, graph.constant(f"{own}.{at}", np.int64(at)), axis=0) for at in range(3)
    )
    scores = graph.op("MatMul", query, graph.op("Transpose", key, perm=[0, 1, 3, 2]))
    shares = graph.op("Softmax", graph.op("Add", scores, hidden), axis=-1)
    seen = graph.op("Transpose", graph.op("MatMul", shares, value), perm=[0, 2, 1, 3])
    flat = graph.constant(f"{own}.flat", np.array([0, 0, size], np.int64))
    seen = graph.dense(graph.op("Reshape", seen, flat), f"{name}.attention.output.dense")
    x = graph.norm(graph.op("Add", x, seen), f"{name}.attention.output.LayerNorm", epsilon)
    wide = graph.op("Gelu", graph.dense(x, f"{name}.intermediate.dense"))
    narrow = graph.dense(wide, f"{name}.output.dense")
    return graph.norm(graph.op("Add", x, narrow), f"{name}.output.LayerNorm", epsilon)


def _pooled(graph: _Graph, x: str, mask: str, pooling: Pooling) -> None:
    last = graph.constant("last", np.array([-1], np.int64))
    if pooling == "cls":
        total = graph.op("Gather", x, graph.constant("first", np.int64(0)), axis=1)
    else:
        tokens = graph.constant("tokens", np.array([1], np.int64))
        # The mean points where the sum does, and only its direction counts.
        total = graph.op(
            "ReduceSum", graph.op("Mul", x, graph.op("Unsqueeze", mask, last)), tokens, keepdims=0
        )
    length = graph.op("ReduceL2", total, last, keepdims=1)
    graph.nodes.append(helper.make_node("Div", [total, length], ["sentence"]))


def _model(graph: _Graph, size: int) -> bytes:
    tokens = ["batch", "tokens"]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "sentence_encoder",
            [
                helper.make_tensor_value_info("input_ids", TensorProto.INT64, tokens),
                helper.make_tensor_value_info("attention_mask", TensorProto.INT64, tokens),
            ],
            [helper.make_tensor_value_info("sentence", TensorProto.FLOAT, ["batch", size])],
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
    )
    encoded: bytes = model.SerializeToString()
    return encoded
