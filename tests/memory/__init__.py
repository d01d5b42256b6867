"""The extension's unsafe paths under valgrind (`make valgrind`).

What belongs here: the driver, the script that runs it and judges valgrind's report. What does not: reference
counts, which `tests/unit/test_refcounts.py` checks without it.
"""
