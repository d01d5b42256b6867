"""Guards and the verifier as Python sees them."""

from __future__ import annotations

import pytest

from llmcache_fast import _core


def judge(one: str, two: str, cosine: float = 0.95) -> _core.Judgement:
    return _core.judge(_core.Question(one), _core.Question(two), cosine)


def test_a_rewording_is_accepted() -> None:
    judgement = judge("How do I store garlic?", "What is a good way to store garlic?")
    assert judgement.vetoes == ()
    assert _core.COLD_START_SCORE < judgement.score <= 1


@pytest.mark.parametrize(
    ("one", "two", "guard"),
    [
        ("Who won the race in 2011?", "Who won the race in 2014?", "numbers"),
        ("Is it open on Monday?", "Is it open on Sunday?", "dates"),
        ("Where was Marta Solberg born?", "Where was Paulo Ferreira born?", "names"),
        ("Why should I water a cactus?", "Why should I not water a cactus?", "negation"),
        ("How do I get from Graz to Linz?", "How do I get from Linz to Graz?", "order"),
        ("How do I raise the volume?", "How do I lower the volume?", "opposites"),
    ],
)
def test_guards_are_named(one: str, two: str, guard: str) -> None:
    for judgement in (judge(one, two), judge(two, one)):
        assert guard in judgement.vetoes
        assert set(judgement.vetoes) <= set(_core.GUARDS)


def test_features_have_names() -> None:
    judgement = judge("How do I store garlic?", "Where do I buy garlic?", 0.75)
    features = dict(zip(_core.FEATURES, judgement.features, strict=True))
    assert features["cosine"] == 0.75
    assert features["changed_least"] == features["changed_most"] == 1


def test_nothing_of_a_text_is_shown() -> None:
    assert repr(_core.Question("a secret")) == "<Question>"
    assert "secret" not in repr(judge("a secret", "another secret"))


def test_names_are_named_once() -> None:
    for names in (_core.GUARDS, _core.FEATURES):
        assert len(set(names)) == len(names)
    assert 0 < _core.COSINE_FLOOR < 1
    assert 0 < _core.COLD_START_SCORE < 1


@pytest.mark.parametrize("text", ["", "\x00", "?" * 10_000, "\ud7ff", "a" * 10_000, "🙂 e\u0301"])
def test_any_text_will_do(text: str) -> None:
    assert judge(text, text, 1.0).vetoes == ()


def test_a_text_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError):
        _core.Question(b"bytes")  # type: ignore[arg-type]
    with pytest.raises(UnicodeEncodeError):
        _core.Question("\ud800")
