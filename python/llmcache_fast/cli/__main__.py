"""`python -m llmcache_fast.cli`: the command where its script is not on the path."""

from __future__ import annotations

import sys

from llmcache_fast.cli import main

sys.exit(main())
