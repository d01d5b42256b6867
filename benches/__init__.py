"""Figures: what the package costs beside its peers, in one process, in interleaved rounds.

What belongs here: one `test_*.py` per kind of work, each with the contenders of one or more rows of the
table that `figures.py` prints, and the workloads. What does not: tests (nothing here passes or fails), and
the benches of the core alone (`rust/core/benches`). They run in an environment of their own, `.bench-venv`,
because the newest versions of some peers exclude those the package is tested with.
"""

import os

# Processor time is that of all threads, and those of numpy's products and of faiss go on spinning for
# milliseconds: it was charged to who had the next turn, as much as a semantic hit takes. Read when they are
# first imported.
for threads in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(threads, "1")
