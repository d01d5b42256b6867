"""A small BERT of random weights in a folder, and the same network written in numpy alone."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

HIDDEN, HEADS, LAYERS, INNER, POSITIONS = 8, 2, 2, 16, 12
WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *"abcdefghij"]
CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": HIDDEN,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "max_position_embeddings": POSITIONS,
    "layer_norm_eps": 1e-12,
}


def weights() -> dict[str, Any]:
    rng = np.random.default_rng(5)

    def some(*shape: int) -> Any:
        return rng.normal(size=shape).astype(np.float32)

    found = {
        "embeddings.word_embeddings.weight": some(len(WORDS), HIDDEN),
        "embeddings.position_embeddings.weight": some(POSITIONS, HIDDEN),
        "embeddings.token_type_embeddings.weight": some(2, HIDDEN),
    }
    dense: dict[str, tuple[int, int] | None] = {"embeddings.LayerNorm": None}
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            dense[f"{name}.attention.self.{part}"] = (HIDDEN, HIDDEN)
        dense |= {
            f"{name}.attention.output.dense": (HIDDEN, HIDDEN),
            f"{name}.attention.output.LayerNorm": None,
            f"{name}.intermediate.dense": (INNER, HIDDEN),
            f"{name}.output.dense": (HIDDEN, INNER),
            f"{name}.output.LayerNorm": None,
        }
    for name, shape in dense.items():
        found[f"{name}.weight"] = some(*(shape or (HIDDEN,)))
        found[f"{name}.bias"] = some((shape or (HIDDEN,))[0])
    return found


def make(folder: Path, *, prefix: str = "", half: bool = False, **config: Any) -> Path:
    """A folder in the layout of sentence-transformers."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    kind = np.float16 if half else np.float32
    save_file(
        {prefix + name: value.astype(kind) for name, value in weights().items()}, folder / "model.safetensors"
    )
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    # As many folders do, it bounds and pads in a way that is not the model's.
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=7)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def pool(folder: Path, mode: str) -> Path:
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{mode}": True}))
    return folder


def tokens(text: str) -> list[int]:
    return [1, *(WORDS.index(word) if word in WORDS else 3 for word in text.split()), 2]


def reference(text: str, pooling: str = "mean") -> Any:
    """Devlin et al. 2019, plainly: one text, no padding, no batches."""
    found = {name: value.astype(np.float64) for name, value in weights().items()}

    def norm(x: Any, name: str) -> Any:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + CONFIG["layer_norm_eps"])
        return x * found[f"{name}.weight"] + found[f"{name}.bias"]

    def dense(x: Any, name: str) -> Any:
        return x @ found[f"{name}.weight"].T + found[f"{name}.bias"]

    ids = tokens(text)
    x = found["embeddings.word_embeddings.weight"][ids]
    x = x + found["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + found["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        q, k, v = (dense(x, f"{name}.attention.self.{part}") for part in ("query", "key", "value"))
        size, heads = HIDDEN // HEADS, []
        for head in range(HEADS):
            part = slice(head * size, (head + 1) * size)
            scores = np.exp(q[:, part] @ k[:, part].T / math.sqrt(size))
            heads.append(scores / scores.sum(-1, keepdims=True) @ v[:, part])
        x = norm(
            x + dense(np.concatenate(heads, -1), f"{name}.attention.output.dense"),
            f"{name}.attention.output.LayerNorm",
        )
        wide = dense(x, f"{name}.intermediate.dense")
        wide = wide * 0.5 * (1 + np.vectorize(math.erf)(wide / math.sqrt(2)))
        x = norm(x + dense(wide, f"{name}.output.dense"), f"{name}.output.LayerNorm")
    vector = x[0] if pooling == "cls" else x.mean(0)
    return vector / np.linalg.norm(vector)
