"""Matching by meaning: what a text's vector is, and what may be answered because of it.

What belongs here: embedders, vectors, and what decides on a match. What does not: requests, entries and tiers
(the layers above put them together). Names are imported when they are asked for: no embedder's library is
loaded by `import llmcache_fast`.
"""
