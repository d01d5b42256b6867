"""The vectors are checked against the plain-Python reference, which lives with the property tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "properties")]
