"""The vector index: the nearest of 1,000, 10,000 and 100,000 vectors, beside an exact scan and other indexes.

All hold the same vectors of 384 numbers and are asked the same questions. The vectors are drawn to be like
those of a sentence encoder (all-MiniLM over 17,000 questions): half of the variance in 50 directions, two
thirds in 100, topics of some twenty texts; a question lies at a cosine of 0.80 to 0.98 to one of them, as a
rewording does. Each row says of each contender how often it found the nearest (recall@1), and its bytes for
each vector.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import faiss
import hnswlib
import numpy as np
import pytest
from usearch.index import Index

from benches.figure import OURS, Figure, from_times
from benches.rounds import Contender, Spread, interleave, pedantic
from llmcache_fast._core import VectorIndex

DIMENSION = 384
SIZES = (1_000, 10_000, 100_000)
TARGETS_US = {1_000: 30, 10_000: 200, 100_000: 400}
ROOM = 1 << 30
HOME = bytes(32)


def keys(count: int) -> list[bytes]:
    return [blake2b(number.to_bytes(8), digest_size=32).digest() for number in range(count)]


def texts(count: int, seed: int = 1) -> np.ndarray:
    """Vectors as of `count` short texts."""
    rng = np.random.default_rng(seed)
    scale = np.exp(-np.arange(DIMENSION) / 180).astype(np.float32)
    turn = np.linalg.qr(rng.standard_normal((DIMENSION, DIMENSION)))[0].astype(np.float32)
    topics = rng.standard_normal((max(count // 20, 1), DIMENSION), dtype=np.float32)
    vectors = topics[rng.integers(0, len(topics), count)]
    vectors = (vectors + 0.8 * rng.standard_normal((count, DIMENSION), dtype=np.float32)) * scale @ turn
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def rewordings(vectors: np.ndarray, count: int, seed: int = 2) -> np.ndarray:
    """Vectors at a cosine of 0.80 to 0.98 to some of `vectors`, off towards other texts."""
    rng = np.random.default_rng(seed)
    chosen = vectors[rng.integers(0, len(vectors), count)]
    away = vectors[rng.integers(0, len(vectors), count)] + 0.02 * rng.standard_normal(
        (count, DIMENSION), dtype=np.float32
    )
    away -= (away * chosen).sum(axis=1, keepdims=True) * chosen
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    cosine = rng.uniform(0.80, 0.98, (count, 1)).astype(np.float32)
    return (cosine * chosen + np.sqrt(1 - cosine**2) * away).astype(np.float32)


class Peer(NamedTuple):
    """A filled index: how it is asked for its nearest, by number, and its bytes."""

    nearest: Callable[[np.ndarray], int]
    size: int


def _ours(vectors: np.ndarray) -> Peer:
    index = VectorIndex(DIMENSION, ROOM)
    names = keys(len(vectors))
    numbers = {name: number for number, name in enumerate(names)}
    for name, vector in zip(names, vectors, strict=True):
        index.add(HOME, name, vector)
    search = index.search
    return Peer(lambda query: numbers[search(HOME, query)[0][0]], index.statistics().bytes)


def _exact(vectors: np.ndarray) -> Peer:
    return Peer(lambda query: int((vectors @ query).argmax()), vectors.nbytes)


def _usearch(vectors: np.ndarray, precision: str) -> Peer:
    index = Index(ndim=DIMENSION, metric="cos", dtype=precision)
    index.add(np.arange(len(vectors)), vectors)
    return Peer(lambda query: int(index.search(query, 8).keys[0]), index.memory_usage)


def _hnswlib(vectors: np.ndarray) -> Peer:
    index = hnswlib.Index(space="ip", dim=DIMENSION)
    index.init_index(max_elements=len(vectors), M=16, ef_construction=128)
    index.set_num_threads(1)
    index.add_items(vectors, np.arange(len(vectors)))
    index.set_ef(64)
    with tempfile.TemporaryDirectory() as folder:
        index.save_index(f"{folder}/index")
        size = Path(f"{folder}/index").stat().st_size
    return Peer(lambda query: int(index.knn_query(query, 8)[0][0][0]), size)


def _faiss(vectors: np.ndarray) -> Peer:
    index = faiss.IndexHNSWFlat(DIMENSION, 16, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction, index.hnsw.efSearch = 128, 64
    index.add(vectors)
    size = len(faiss.serialize_index(index))
    return Peer(lambda query: int(index.search(query[None], 8)[1][0, 0]), size)


PEERS: dict[str, Callable[[np.ndarray], Peer]] = {
    "numpy, exact, float32": _exact,
    "usearch float16": lambda vectors: _usearch(vectors, "f16"),
    "usearch int8": lambda vectors: _usearch(vectors, "i8"),
    "hnswlib": _hnswlib,
    "faiss HNSW": _faiss,
    OURS: _ours,
}


def _entrant(peer: Peer, questions: np.ndarray) -> Contender:
    def run(batch: np.ndarray) -> None:
        for query in batch:
            peer.nearest(query)

    position = 0

    def prepare(size: int) -> np.ndarray:
        nonlocal position
        batch = np.roll(questions, -position, axis=0)[:size]
        position += size
        return batch

    return Contender(prepare, run)


def searches(rounds: int, sizes: tuple[int, ...] = SIZES) -> Iterator[Figure]:
    for size in sizes:
        vectors = texts(size)
        questions = rewordings(vectors, 1000)
        nearest = (questions @ vectors.T).argmax(axis=1)
        peers = {name: make(vectors) for name, make in PEERS.items()}
        times = interleave(
            {name: _entrant(peer, questions) for name, peer in peers.items()}, size=100, rounds=rounds
        )
        figure = from_times(
            f"nearest of {size:,} vectors, 384 dimensions, within {TARGETS_US[size]} us",
            times,
            "usearch float16",
        )
        for name, peer in peers.items():
            found = [peer.nearest(query) for query in questions]
            recall = float(np.mean(np.array(found) == nearest))
            figure.absolute[name] += f", recall@1 {recall:.3f}, {peer.size / size:.0f} bytes each"
        figure.notes.append("each on one core: threads of one contender that spin on are charged to the next")
        yield figure
        del peers
        gc.collect()


def small_partitions(rounds: int) -> Iterator[Figure]:
    """10,000 partitions of 10: the bytes beside those of the vectors as float16, and the time of a search."""
    index = VectorIndex(DIMENSION, ROOM)
    vectors = texts(100_000)
    for number, (name, vector) in enumerate(zip(keys(len(vectors)), vectors, strict=True)):
        index.add(_partition(number // 10), name, vector)
    share = index.statistics().bytes / (vectors.size * 2)
    questions = rewordings(vectors, 1000)
    took = []
    for _ in range(rounds):
        start = perf_counter()
        for number, query in enumerate(questions):
            index.search(_partition(number * 7), query)
        took.append((perf_counter() - start) / len(questions) * 1e6)
    yield Figure(
        "10,000 partitions of 10 vectors: memory",
        "the vectors as float16",
        {OURS: Spread(share, share, share)},
        target=1.3,
    )
    yield Figure(
        "10,000 partitions of 10 vectors: a search", "none", {OURS: Spread.of(took)}, target=15, unit="us"
    )


def _partition(number: int) -> bytes:
    return number.to_bytes(4) * 8


def files(size: int = 100_000) -> Iterator[Figure]:
    """Writing and reading a snapshot, beside building the index."""
    vectors = texts(size)
    index = VectorIndex(DIMENSION, ROOM)
    start = perf_counter()
    for name, vector in zip(keys(size), vectors, strict=True):
        index.add(HOME, name, vector)
    built = perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/vectors"
        start = perf_counter()
        index.save(path)
        saved = perf_counter() - start
        start = perf_counter()
        VectorIndex.load(path, ROOM)
        loaded = perf_counter() - start
    took = {"built": built, "saved": saved, OURS: loaded}
    yield Figure(
        f"a snapshot of {size:,} vectors: loaded, beside built",
        "built",
        {name: Spread(part / built, part / built, part / built) for name, part in took.items()},
        absolute={name: f"{part:.2f} s" for name, part in took.items()},
    )


def figures(rounds: int) -> Iterator[Figure]:
    yield from searches(rounds)
    yield from small_partitions(rounds)
    yield from files()


@pytest.mark.parametrize("name", list(PEERS))
@pytest.mark.parametrize("size", SIZES[:2])
def test_search(benchmark: Any, name: str, size: int) -> None:
    vectors = texts(size)
    pedantic(benchmark, _entrant(PEERS[name](vectors), rewordings(vectors, 1000)), size=100)
