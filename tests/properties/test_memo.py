"""The memo of digests changes nothing but the time."""

from __future__ import annotations

import itertools
import random
import sys
import threading
import unicodedata

from tests.properties import reference_fingerprint as reference
from tests.properties.fingerprinting import rust


def copy_of(text: str) -> str:
    return "".join([text[:1], text[1:]])


def test_the_memo_does_not_change_the_fingerprint() -> None:
    texts = [
        letter * n
        for letter in ("x", "\u00e9", "\u20ac", "\U0001f600")
        for n in (85, 128, 255, 256, 257, 5000, 70_000)
    ]
    blobs = [b"x" * n for n in (255, 256, 257, 70_000)]
    for value in [*texts, *blobs]:
        cold = rust([value])
        assert [rust([value]) for _ in range(3)] == [cold] * 3
        assert rust([value[:1] + value[1:]]) == cold  # type: ignore[operator]
        assert rust({"a": value, "b": [value, value]}) == reference.fingerprint(
            {"a": value, "b": [value, value]}
        )
        assert rust([value]) == cold == reference.fingerprint([value])


def test_texts_that_are_alike_are_told_apart() -> None:
    """A known text is looked for by some of its words; these texts have most of them in common."""
    text = "".join(f"{i:04} " for i in range(200))
    for at in [*range(0, len(text), 7), len(text) - 1]:
        other = text[:at] + "x" + text[at + 1 :]
        for value in (text, other, copy_of(other), other.encode(), text.encode(), copy_of(text)):
            assert rust([value]) == reference.fingerprint([value])


def test_known_texts_in_new_objects() -> None:
    for _ in range(3):
        for letter, n in itertools.product("x\u20ac", (256, 5000)):
            text = copy_of(f"{n:03}" + letter * n)
            again = copy_of(text)
            assert text is not again
            assert rust({"a": text, "b": again}) == reference.fingerprint({"a": text, "b": again})
            assert rust({"a": again.encode()}) == reference.fingerprint({"a": text.encode()})


def test_requests_made_again_and_again() -> None:
    """Their documents are kept, short and long ones, and those of other requests between them."""
    requests = [{"n": n, "text": "x" * (n * 37 % 250), "more": list(range(n % 600))} for n in range(60)]
    expected = [reference.fingerprint(request) for request in requests]
    for _ in range(4):
        assert [rust(request) for request in requests] == expected
    assert [rust(dict(reversed(request.items()))) for request in requests] == expected


def test_a_warm_memo_and_normalisation_do_not_mix() -> None:
    text = "e\u0301" * 200
    plain = rust([text])
    normal = rust([text], nfc=True)
    assert plain != normal
    assert (rust([text]), rust([text], nfc=True)) == (plain, normal)
    assert normal == rust([unicodedata.normalize("NFC", text)])


def test_the_memo_is_bounded_and_eviction_harmless() -> None:
    texts = [f"{i:08}" * 40 for i in range(20_000)]
    first = rust(texts)
    references = [sys.getrefcount(text) for text in texts]
    assert sum(count > references[0] for count in references) < 10_000
    assert rust(texts) == first
    assert rust([copy_of(text) for text in texts]) == first


def test_dead_objects_are_not_remembered_by_address() -> None:
    for i in range(5_000):
        text = f"{i:04}" * 100
        assert rust([text]) == reference.fingerprint([text])
        del text


def test_many_threads_agree() -> None:
    shared = [f"{i} " * 300 for i in range(200)]
    expected = {i: reference.fingerprint({"turns": shared[:i], "model": "m"}) for i in range(0, 200, 7)}
    wrong: list[int] = []
    start = threading.Barrier(8)

    def work(seed: int) -> None:
        order = list(expected) * 5
        random.Random(seed).shuffle(order)
        start.wait()
        for i in order:
            turns = shared[:i] if i % 2 else [copy_of(text) for text in shared[:i]]
            if rust({"model": "m", "turns": turns}) != expected[i]:
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
