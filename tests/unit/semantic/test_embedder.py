"""What an embedder must be and return, and which vectors may be compared."""

from __future__ import annotations

import array
import math
import struct
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcache_fast._errors import ConfigurationError, EmbeddingError
from llmcache_fast.semantic.embedder import Embedder, check, space_of, vectors_of
from tests.unit.semantic.conftest import PlannedEmbedder

ROWS = [[3.0, 4.0], [0.0, -2.0], [1.0, 0.0]]
UNIT = [[0.6, 0.8], [0.0, -1.0], [1.0, 0.0]]


def embedder(**fields: Any) -> Any:
    async def embed(texts: Any) -> Any:
        return []

    return SimpleNamespace(**{"name": "a", "version": "1", "dimension": 2, "embed": embed, **fields})


def floats(vector: bytes | None) -> list[float]:
    assert vector is not None
    return list(struct.unpack(f"<{len(vector) // 4}f", vector))


@pytest.mark.parametrize(
    "result",
    [
        ROWS,
        tuple(tuple(row) for row in ROWS),
        (row for row in ROWS),
        np.array(ROWS, np.float32),
        np.array(ROWS, np.float64),
        np.array(ROWS, np.float16),
        np.array(ROWS, ">f4"),
        np.array(ROWS, ">f8"),
        np.asfortranarray(np.array(ROWS, np.float32)),
        np.array([row * 2 for row in ROWS], np.float32)[:, :2],
        [np.array(row, np.float32) for row in ROWS],
        [array.array("d", row) for row in ROWS],
        [[np.float32(value) for value in row] for row in ROWS],
        [[3, 4], [0, -2], [1, 0]],
    ],
    ids=lambda result: type(result).__name__,
)
def test_many_kinds_of_arrays_are_vectors_of_unit_length(result: Any) -> None:
    vectors = vectors_of(result, 3, embedder())
    assert [floats(vector) for vector in vectors] == [pytest.approx(row) for row in UNIT]


def test_what_is_of_unit_length_is_left_as_it_came() -> None:
    row = np.array([[0.6, 0.8]], np.float32)
    assert vectors_of(row, 1, embedder()) == [row.tobytes()]


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (ROWS[:2], "2 vectors for 3 texts"),
        ([], "0 vectors for 3 texts"),
        (np.zeros((2, 2), np.float32), r"shape \(2, 2\), not \(3, 2\)"),
        (np.zeros((3, 3), np.float32), r"shape \(3, 3\), not \(3, 2\)"),
        (np.zeros(6, np.float32), r"shape \(6,\), not \(3, 2\)"),
        (np.zeros((3, 2), np.int32), "numbers of the type 'i'"),
        ([[1.0], [1.0], [1.0]], "a vector of 1 numbers, not 2"),
        ([[1.0, 2.0, 3.0]] * 3, "a vector of 3 numbers, not 2"),
        ([np.zeros((2, 2), np.float32)] * 3, "a vector of 4 numbers, not 2"),
        ([None] * 3, "a vector of the type NoneType"),
        (["ab", "cd", "ef"], "a vector of the type str"),
        (None, "returned NoneType"),
        (7, "returned int"),
        (b"abcdef", r"shape \(6,\)"),
    ],
)
def test_what_is_none_is_refused_whole(result: Any, said: str) -> None:
    with pytest.raises(EmbeddingError, match=said) as caught:
        vectors_of(result, 3, embedder(name="mine"))
    assert (caught.value.embedder, caught.value.reason) == ("mine", "invalid")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300])
def test_a_text_without_direction_has_no_vector_and_the_others_have(bad: float) -> None:
    vectors = vectors_of([[bad, 1.0], [3.0, 4.0], [0.0, 0.0]], 3, embedder())
    assert vectors[0] is None
    assert floats(vectors[1]) == pytest.approx([0.6, 0.8])
    assert vectors[2] is None


@given(st.lists(st.floats(width=32, allow_nan=True), min_size=8, max_size=8))
def test_a_vector_is_of_unit_length_or_none(row: list[float]) -> None:
    (vector,) = vectors_of([row], 1, embedder(dimension=8))
    usable = all(map(math.isfinite, row)) and any(row)
    assert (vector is not None) == usable
    if vector is not None:
        assert math.hypot(*floats(vector)) == pytest.approx(1.0, abs=2e-4)


def test_a_space_is_one_embedder_at_one_version_dimension_and_precision() -> None:
    spaces = [
        space_of(embedder()),
        space_of(embedder(name="b")),
        space_of(embedder(version="2")),
        space_of(embedder(dimension=3)),
        space_of(embedder(precision="int8")),
        space_of(embedder(name="a1", version="1")),
        space_of(embedder(name="a", version="11")),
    ]
    assert len(set(spaces)) == len(spaces)
    assert {len(space) for space in spaces} == {16}
    assert space_of(embedder()) == space_of(embedder(precision="float32"))


def test_a_space_is_named_alike_for_ever() -> None:
    # Stored vectors carry it.
    assert space_of(embedder()).hex() == "0b1276f0694118d5cbdb8057d686c89c"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": ""}, "name: must be a text"),
        ({"name": None}, "name: must be a text"),
        ({"version": 3}, "version: must be a text"),
        ({"dimension": 0}, "dimension: must be an integer"),
        ({"dimension": 1.0}, "dimension: must be an integer"),
        ({"dimension": True}, "dimension: must be an integer"),
        ({"embed": None}, "embed: must be an async method"),
    ],
)
def test_what_is_no_embedder_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        check(embedder(**fields))
    with pytest.raises(ConfigurationError, match=said):
        space_of(embedder(**fields))


def test_the_protocol_is_met_by_what_has_its_fields(planned: PlannedEmbedder) -> None:
    assert isinstance(planned, Embedder)
    assert not isinstance(object(), Embedder)
