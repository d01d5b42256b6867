"""What the folder of a sentence encoder says: its files, in the layout of sentence-transformers.

What does not belong here: running the network (`onnx`, `sentence`).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from llmcache_fast._errors import ConfigurationError

Pooling = Literal["mean", "cls"]
_MODULES = {"Transformer", "Pooling", "Normalize"}
_WEIGHTS = ("model.onnx", "onnx/model.onnx", "model.safetensors", "pytorch_model.bin")


class ModelFolder:
    """A folder on disk with a model's files."""

    def __init__(self, path: str | Path) -> None:
        """Reads what is small.

        Raises:
            ConfigurationError: there is no such folder, it has no weights, or a file of it cannot be read.
        """
        self.path = Path(path)
        if not self.path.is_dir():
            raise ConfigurationError(f"{self.path}: is no folder; name the one that holds the model's files")
        weights = next((name for name in _WEIGHTS if (self.path / name).is_file()), None)
        if weights is None:
            raise ConfigurationError(f"{self.path}: holds none of {', '.join(_WEIGHTS)}")
        self.weights = self.path / weights
        self.modules: list[str] = [
            str(row["type"]).rpartition(".")[2] for row in self._read("modules.json", [])
        ]

    @property
    def tokenizer(self) -> Path:
        """The file of its tokenizer."""
        return self.path / "tokenizer.json"

    def max_tokens(self) -> int:
        """What it reads of a text, in tokens, special ones included."""
        own = self._read("sentence_bert_config.json", {}).get("max_seq_length")
        return int(own or self._read("config.json", {}).get("max_position_embeddings") or 512)

    def pooling(self) -> Pooling:
        """How the vectors of tokens become one.

        Raises:
            ConfigurationError: in a way, or with a layer after it, that is not known here.
        """
        if unknown := set(self.modules) - _MODULES:
            raise ConfigurationError(
                f"{self.path}: modules.json names layers that are not known here "
                f"({', '.join(sorted(unknown))}); use SentenceTransformerEmbedder"
            )
        told = self._read("1_Pooling/config.json", {"pooling_mode_mean_tokens": True})
        modes = {name for name, on in told.items() if on is True}
        modes.discard("include_prompt")
        if modes == {"pooling_mode_mean_tokens"}:
            return "mean"
        if modes == {"pooling_mode_cls_token"}:
            return "cls"
        raise ConfigurationError(
            f"{self.path}: pools by {', '.join(sorted(modes)) or 'nothing'}, and only the mean and the first "
            "token are known here; use SentenceTransformerEmbedder"
        )

    def digest(self, *settings: str) -> str:
        """16 hex digits of what decides a vector: weights, tokenizer, configuration, and `settings`.

        Reads all of the weights: a tenth of a second for 90 MB.
        """
        whole = hashlib.blake2b(digest_size=8)
        names = ["config.json", "modules.json", "1_Pooling/config.json"]
        for path in (self.weights, self.tokenizer, *(self.path / name for name in names)):
            if path.is_file():
                with path.open("rb") as file:
                    whole.update(hashlib.file_digest(file, hashlib.blake2b).digest())
            else:
                whole.update(b"none")
        for setting in settings:
            encoded = setting.encode()
            whole.update(len(encoded).to_bytes(8, "little") + encoded)
        return whole.hexdigest()

    def _read(self, name: str, absent: Any) -> Any:
        try:
            return json.loads((self.path / name).read_text())
        except FileNotFoundError:
            return absent
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{self.path / name}: cannot be read: {type(error).__name__}") from error
