"""Counting what thresholds would do; intervals against exact ones."""

from __future__ import annotations

import math

import pytest

from llmcache_fast.semantic.forecast import Forecast, Line, keeps, of_pairs, prior_of, share


class Exact:
    """Every vector is looked at."""

    def __init__(self) -> None:
        self.vectors: list[tuple[bytes, bytes, bytes]] = []

    def add(self, partition: bytes, key: bytes, vector: bytes) -> bool:
        self.vectors.append((partition, key, vector))
        return False

    def search(self, partition: bytes, vector: bytes, limit: int) -> list[tuple[bytes, float]]:
        """As if a vector were one number, and near were alike."""
        found = [
            (key, 1 - abs(vector[0] - other[0]) / 100) for p, key, other in self.vectors if p == partition
        ]
        return sorted(found, key=lambda each: -each[1])[:limit]


def lines(*told: tuple[str, int | None, str | None]) -> list[Line]:
    return [Line(b"p", text, None if at is None else bytes([at]), answer) for text, at, answer in told]


def forecast(told: list[Line], score: object = None) -> Forecast:
    found = Forecast(Exact(), score if callable(score) else lambda _asked, _stored, cosine: cosine)
    for line in told:
        found.add(line)
    return found


def test_wrong_and_right_are_counted_at_the_thresholds_that_they_reach() -> None:
    found = forecast(lines(("a", 10, "x"), ("b", 13, "x"), ("c", 50, "y"), ("d", 55, "z"), ("a", 10, "x")))
    assert (found.requests, found.repeated) == (5, 1)
    points = {point.threshold: point for point in found.points()}
    assert points[0.98].hits.count == 0
    assert (points[0.97].hits.count, points[0.97].wrong.count) == (1, 0)
    assert (points[0.95].hits.count, points[0.95].wrong.count) == (2, 1)
    assert points[0.95].wrong_requests.share == pytest.approx(0.2)


def test_answers_that_are_not_known_are_neither_right_nor_wrong() -> None:
    found = forecast(lines(("a", 10, None), ("b", 11, "x"), ("c", 12, "x")))
    point = found.points()[-1]
    assert (point.hits.count, point.wrong.of, point.wrong.count) == (2, 1, 0)


def test_a_text_without_a_vector_is_no_match() -> None:
    assert forecast(lines(("a", None, "x"), ("b", 10, "x"))).points()[-1].hits.count == 0


@pytest.mark.parametrize(("nearest", "wrong"), [(-1.0, 0), (0.9, 1)])
def test_the_nearest_that_may_ask_the_same_counts(nearest: float, wrong: int) -> None:
    scores = {"near": nearest, "far": 0.95}
    found = forecast(
        lines(("near", 10, "wrong"), ("far", 50, "right"), ("asked", 11, "right")),
        lambda asked, stored, _cosine: scores[stored] if asked == "asked" else -1.0,
    )
    point = next(point for point in found.points() if point.threshold == 0.9)
    assert (point.hits.count, point.wrong.count) == (1, wrong)


def test_pairs_at_a_threshold() -> None:
    pairs = [(0.995, True)] * 8 + [(0.9, True)] * 2 + [(0.95, False)] * 5 + [(0.1, False)] * 5
    points = {point.threshold: point for point in of_pairs(pairs)}
    assert points[0.99].hits.share == 0.8
    assert points[0.99].false_hits.share == 0.0
    assert points[0.90].wrong.share == pytest.approx(5 / 15)
    assert points[0.50].false_hits.share == 0.5
    prior = prior_of(pairs)
    assert prior.answers[0] == (8.0, 0.0)
    assert prior.answers[-1] == (10.0, 5.0)


def test_the_loosest_threshold_that_keeps_a_budget() -> None:
    pairs = [(0.95, True)] * 400 + [(0.8, True)] * 50 + [(0.8, False)] * 50
    assert keeps(of_pairs(pairs), 0.02) == 0.81
    assert keeps(of_pairs(pairs), 0.2) == 0.50
    assert keeps(of_pairs(pairs[:20]), 0.02) is None
    assert keeps(of_pairs([]), 0.5) is None


@pytest.mark.parametrize(("count", "of"), [(0, 0), (0, 1), (1, 1), (0, 30), (3, 30), (29, 30), (30, 30)])
def test_an_interval_holds_what_was_found(count: int, of: int) -> None:
    found = share(count, of, 0.95)
    assert 0 <= found.low <= found.high <= 1
    if of:
        assert found.low <= count / of <= found.high


@pytest.mark.parametrize("truth", [0.02, 0.1, 0.5])
def test_an_interval_holds_the_truth_as_often_as_it_says(truth: float) -> None:
    """Summed over all that 60 draws may give, not drawn."""
    covered = sum(
        math.comb(60, count) * truth**count * (1 - truth) ** (60 - count)
        for count in range(61)
        if share(count, 60, 0.95).low <= truth <= share(count, 60, 0.95).high
    )
    assert covered > 0.93
