"""The reference and the decoder beside these tests are plain modules: they need no package."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
