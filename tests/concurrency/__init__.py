"""Many tasks, threads, loops or processes at once: flights, cancellation, forks.

What does not belong here: broken stores and killed processes (`faults`).
"""
