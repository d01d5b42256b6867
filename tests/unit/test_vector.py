"""The vector index as Python sees it: buffers, errors, matches, files, forks, threads."""

from __future__ import annotations

import array
import math
import os
import random
import struct
import threading
from hashlib import blake2b
from pathlib import Path

import pytest

from llmcache_fast._core import VectorIndex, to_half

DIMENSION = 32
ROOM = 1 << 24


def name(number: int) -> bytes:
    return blake2b(number.to_bytes(8), digest_size=32).digest()


HOME = name(1 << 40)


def vector(seed: int) -> array.array[float]:
    numbers = random.Random(seed)
    return array.array("f", [numbers.gauss(0, 1) for _ in range(DIMENSION)])


def filled(count: int) -> VectorIndex:
    index = VectorIndex(DIMENSION, ROOM)
    for number in range(count):
        assert index.add(HOME, name(number), vector(number)) is False
    return index


def test_an_entry_is_found_best_first() -> None:
    index = filled(20)
    found = index.search(HOME, vector(7), limit=3)
    assert [type(part) for part in found[0]] == [bytes, float]
    assert found[0][0] == name(7)
    assert found[0][1] == pytest.approx(1.0, abs=1e-6)
    assert len(found) == 3
    assert found[0][1] >= found[1][1] >= found[2][1]
    assert index.search(HOME, vector(7), floor=0.99) == found[:1]
    assert index.search(name(99), vector(7)) == []


def test_replacing_and_removing_say_whether_there_was_one() -> None:
    index = filled(3)
    assert index.add(HOME, name(1), vector(50)) is True
    assert index.contains(HOME, name(1))
    assert index.remove(HOME, name(1)) is True
    assert index.remove(HOME, name(1)) is False
    assert not index.contains(HOME, name(1))
    assert (index.size(HOME), len(index)) == (2, 2)
    assert len(set(index.keys(HOME))) == 2
    assert all(index.contains(HOME, key) for key in index.keys(HOME))
    assert index.drop_partition(HOME) == 2
    assert index.drop_partition(HOME) == 0
    assert index.add(HOME, name(1), vector(1)) is False
    assert index.clear() == 1
    assert len(index) == 0


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview, lambda value: value])
def test_any_contiguous_buffer_will_do(form: type) -> None:
    index = filled(5)
    exact = vector(3)
    given = form(exact) if form is memoryview else form(exact.tobytes()) if isinstance(form, type) else exact
    assert index.search(HOME, given, limit=1)[0][0] == name(3)
    index.add(HOME, name(60), given)
    assert index.size(HOME) == 6


def test_half_precision_is_told_apart_by_its_length() -> None:
    index = filled(5)
    half = to_half(vector(2))
    assert len(half) == 2 * DIMENSION
    numbers = struct.unpack(f"<{DIMENSION}e", half)
    assert math.hypot(*numbers) == pytest.approx(1, abs=1e-3)
    exact = vector(2)
    length = math.hypot(*exact)
    assert numbers == pytest.approx([number / length for number in exact], abs=1e-3)
    key, cosine = index.search(HOME, half, limit=1)[0]
    assert key == name(2)
    assert cosine > 0.9999


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (array.array("f", [0.0] * DIMENSION), "zero"),
        (array.array("f", [1.0, math.nan] * (DIMENSION // 2)), "number 1 is NaN or infinite"),
        (array.array("f", [math.inf] * DIMENSION), "number 0 is NaN or infinite"),
        (array.array("f", [1.0] * 3), "12 bytes were given; 32 numbers are 128 bytes as float32 or 64"),
        (b"", "0 bytes were given"),
    ],
)
def test_a_vector_without_direction_is_refused(wrong: array.array[float], message: str) -> None:
    index = filled(1)
    with pytest.raises(ValueError, match=message):
        index.add(HOME, name(0), wrong)
    with pytest.raises(ValueError, match=message):
        index.search(HOME, wrong)
    assert index.size(HOME) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        [1.0] * DIMENSION,
        "text",
        None,
        array.array("d", [1.0] * (DIMENSION // 2)),  # as many bytes as float32 would have
        array.array("i", [1] * DIMENSION),
        memoryview(bytes(8 * DIMENSION))[::2],
    ],
)
def test_other_numbers_are_refused_by_their_type(wrong: object) -> None:
    index = filled(1)
    with pytest.raises(TypeError, match="contiguous float32 or float16"):
        index.add(HOME, name(0), wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="contiguous float32 or float16"):
        to_half(wrong)  # type: ignore[arg-type]


def test_to_half_says_what_is_no_vector() -> None:
    for wrong in (b"", b"abcde"):
        with pytest.raises(ValueError, match="no float32 numbers"):
            to_half(wrong)
    with pytest.raises(ValueError, match="zero"):
        to_half(array.array("f", [0.0]))


def test_names_are_32_bytes() -> None:
    index = filled(1)
    with pytest.raises(ValueError, match="partition: 32 bytes are needed, 3 were given"):
        index.search(b"abc", vector(1))
    with pytest.raises(ValueError, match="key: 32 bytes are needed, 31 were given"):
        index.add(HOME, bytes(31), vector(1))


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="dimension: 0 is not within"):
        VectorIndex(0, ROOM)
    with pytest.raises(ValueError, match="max_bytes: 10 is too little"):
        VectorIndex(DIMENSION, 10)


def test_the_bound_holds_and_is_counted() -> None:
    room = 50_000
    index = VectorIndex(DIMENSION, room)
    for number in range(2000):
        index.add(name(number % 7), name(number), vector(number))
        assert index.statistics().bytes <= room
    statistics = index.statistics()
    assert statistics.max_bytes == room
    assert statistics.evicted > 0
    assert statistics.vectors == len(index) == 2000 - statistics.evicted
    assert statistics.partitions <= 7
    assert statistics.graphs == 0


def test_a_snapshot_is_the_same_index(tmp_path: Path) -> None:
    index = filled(50)
    path = tmp_path / "vectors"
    index.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["vectors"]
    loaded = VectorIndex.load(path, ROOM)
    assert (loaded.dimension, len(loaded)) == (DIMENSION, 50)
    assert loaded.search(HOME, vector(9)) == index.search(HOME, vector(9))
    loaded.add(HOME, name(70), vector(70))
    loaded.save(path)
    assert len(VectorIndex.load(path, ROOM)) == 51


def test_a_damaged_snapshot_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vectors"
    filled(5).save(path)
    whole = path.read_bytes()
    for damaged in (whole[:-1], b"", whole[:100] + b"!" + whole[101:], b"x" * 1000):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"vectors: not a usable snapshot .* built anew"):
            VectorIndex.load(path, ROOM)
    with pytest.raises(FileNotFoundError, match=r"cannot use .*missing"):
        VectorIndex.load(tmp_path / "missing", ROOM)
    with pytest.raises(FileNotFoundError, match="no-folder"):
        filled(1).save(tmp_path / "no-folder" / "vectors")


def test_a_forked_child_begins_empty() -> None:
    index = filled(10)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            empty = len(index) == 0 and index.search(HOME, vector(1)) == []
            index.add(HOME, name(1), vector(1))
            own = index.search(HOME, vector(1), limit=1)[0][0] == name(1)
            code = 0 if empty and own and len(index) == 1 else 2
            del index
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(index) == 10


def test_threads_search_while_others_change() -> None:
    index = VectorIndex(DIMENSION, ROOM)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        numbers = random.Random(seed)
        try:
            for _ in range(400):
                number = numbers.randrange(200)
                if numbers.random() < 0.2:
                    index.remove(HOME, name(number))
                else:
                    index.add(HOME, name(number), vector(number))
                for key, cosine in index.search(HOME, vector(number), limit=2):
                    assert (cosine > 0.999) == (key == name(number))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert index.size(HOME) == len(index)
