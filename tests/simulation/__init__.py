"""The real cache under a simulated world: time, network, servers, crashes.

See docs/explanation/simulation.md.

`python -m tests.simulation --help` runs many schedules, or one of them again.
"""
