"""Figures: what the package costs beside its peers, in one process, in interleaved rounds.

What belongs here: one `test_*.py` per kind of work, each with the contenders of one or more rows of the
table that `figures.py` prints, and the workloads. What does not: tests (nothing here passes or fails), and
the benches of the core alone (`rust/core/benches`). They run in an environment of their own, `.bench-venv`,
because the newest versions of some peers exclude those the package is tested with.
"""
