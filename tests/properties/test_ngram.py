"""Near-exact vectors: variants of one text are near, other texts are not."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from llmcache_fast.semantic import NGramEmbedder

EMBEDDER = NGramEmbedder()
WORDS = st.lists(
    st.text("abcdefghijklmnopqrstuvwxyzäöüßéñ0123456789", min_size=1, max_size=10), min_size=4, max_size=20
)
SPACE = st.sampled_from([" ", "  ", "\t", "\n", "\u00a0", " \r\n "])
ENDS = st.sampled_from(["", ".", "?", "!", " ?", "...", "\u2026", "  "])
BETWEEN = st.sampled_from(["", "", "", ",", ";", " \u2013", "!"])


def cosine(one: str, other: str) -> float:
    return sum(a * b for a, b in zip(EMBEDDER.vector(one), EMBEDDER.vector(other), strict=True))


@given(WORDS, st.data())
def test_case_spacing_and_punctuation_change_next_to_nothing(words: list[str], data: st.DataObject) -> None:
    variant = data.draw(SPACE)
    for word in words:
        shown = data.draw(st.sampled_from([word, word.upper(), word.title()]))
        variant += shown + data.draw(BETWEEN) + data.draw(SPACE)
    variant += data.draw(ENDS)
    assert cosine(" ".join(words), variant) > 0.99


@given(WORDS, st.data())
def test_a_slip_of_one_letter_stays_near(words: list[str], data: st.DataObject) -> None:
    text = " ".join(words)
    assume(len(text) >= 60)
    at = data.draw(st.integers(0, len(text) - 1))
    assert cosine(text, text[:at] + text[at + 1 :]) > 0.85


@given(WORDS, WORDS)
def test_texts_of_other_words_are_far(one: list[str], other: list[str]) -> None:
    grams = {word[at : at + 3] for word in (f" {word} " for word in one) for at in range(len(word) - 2)}
    others = {word[at : at + 3] for word in (f" {word} " for word in other) for at in range(len(word) - 2)}
    assume(not grams & others)
    assert cosine(" ".join(one), " ".join(other)) < 0.7
