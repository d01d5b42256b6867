"""The suite. One folder per way of testing; a test file carries the name of the module it tests.

What belongs here: checks that run by themselves. What does not: figures (`benches/`), and test doubles users
need too (`llmcache_fast.testing`).
"""
