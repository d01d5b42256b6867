"""The embedders that are shipped: one file for each, and what several of them share.

What belongs here: adapters between the `Embedder` protocol and something that makes vectors. What does not:
batching, caching, time limits (`embedding`), and any import of a foreign library when a module here is
imported, but for `bert`, which only `onnx` imports.
"""
