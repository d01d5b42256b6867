"""Vectors of spelling."""

from __future__ import annotations

import hashlib
import math
import struct

import pytest

from llmcache_fast._errors import ConfigurationError
from llmcache_fast.semantic import NGramEmbedder
from llmcache_fast.semantic.embedders.ngram import plain

EMBEDDER = NGramEmbedder()


def cosine(one: str, other: str) -> float:
    return sum(a * b for a, b in zip(EMBEDDER.vector(one), EMBEDDER.vector(other), strict=True))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("  What's   new?\n", "whats new"),
        ("“Hello”… (World)!", "hello world"),
        ("e-mail, E\u2010Mail", "email email"),
        ("pre- and post-war", "pre and postwar"),
        ("yes,no; and/or", "yes no and or"),
        ("v1.5 costs 1,000.50 at 12:30.", "v1.5 costs 1,000.50 at 12:30"),
        ("-5 - 3", "-5 3"),
        ("$5 is not €5, 5% or 5°", "$5 is not €5 5% or 5°"),
        ("C++ or C#?", "c++ or c#"),
        ("foo_bar()", "foo_bar"),
        ("\uff26\uff55\uff4c\uff4c\u3000width \ufb01", "full width fi"),
        ("STRASSE straße", "strasse strasse"),
        ("水は何度で沸騰しますか。", "水は何度で沸騰しますか"),
        ("?!", ""),
    ],
)
def test_what_is_left_of_a_text(text: str, kept: str) -> None:
    assert plain(text) == kept


async def test_a_vector_is_of_unit_length_and_the_same_for_ever() -> None:
    (vector,) = await EMBEDDER.embed(["How do I reset my password?"])
    assert len(vector) == EMBEDDER.dimension == 512
    assert math.hypot(*vector) == pytest.approx(1.0)
    # Stored vectors are compared with new ones: another digest is another `version`.
    assert hashlib.sha256(struct.pack("<512f", *vector)).hexdigest()[:16] == "43e9b48544e8abcd"
    assert EMBEDDER.version == "1"


def test_slips_are_near_and_other_words_are_not() -> None:
    assert cosine("How do I reset my password?", "how do i reset my pasword") > 0.9
    assert cosine("How do I reset my password?", "How do I rest my password?") > 0.85
    assert cosine("How do I reset my password?", "How do I delete my account?") < 0.6
    assert cosine("How do I reset my password?", "When does water boil?") < 0.3


def test_it_knows_nothing_of_meaning() -> None:
    # What its documentation warns of.
    assert cosine("Is it safe to take it with food?", "Is it unsafe to take it with food?") > 0.9
    assert cosine("Where is the doctor?", "Where is the physician?") < 0.8


async def test_a_text_of_punctuation_has_no_direction() -> None:
    assert await EMBEDDER.embed(["?!", ""]) == [[0.0] * 512] * 2


def test_a_lone_surrogate_is_a_letter_like_another() -> None:
    assert math.hypot(*EMBEDDER.vector("a\ud800b")) == pytest.approx(1.0)


@pytest.mark.parametrize("dimension", [0, 32, 100, 1 << 17])
def test_a_dimension_that_cannot_be_is_refused(dimension: int) -> None:
    with pytest.raises(ConfigurationError, match="power of two"):
        NGramEmbedder(dimension)
