"""What the engine holds to be invalid: markers, rules, what is deferred, and what nobody vouches for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llmcache_fast._core import Clock, Engine
from llmcache_fast._entry import NEVER, Facts, pack_facts
from llmcache_fast.testing import ManualClock

KEY, OTHER = b"k" * 32, b"o" * 32
SPACE = Engine._namespace_id("default")
EPOCH = 5
FAR = 1 << 60
LABEL = "content/blog/2024-05"
RULE = "content/*/2024-*"
TAG = Engine._named_targets("default", tags=["t"])


def engine(clock: Clock | None = None, *, strict: bool = False) -> Engine:
    made = Engine()
    made._configure(
        memory=1 << 20, namespace="default", profile="generic", normalize=None, clock=clock or ManualClock(),
        epoch=EPOCH, alone=False, strict=strict,
    )  # fmt: skip
    made._set_open(open=True)
    return made


def put(
    made: Engine, snap: int, *, key: bytes = KEY, label: str | None = LABEL, packed: bytes | None = None,
    tags: tuple[str, ...] = ("t",), until: int = NEVER, namespace: str = "default",
) -> str:  # fmt: skip
    if packed is None:
        packed = pack_facts(Facts(tags=tags, label=label))
    given: tuple[list[str], str | None, list[str], bytes] = (list(tags), label, [], packed)
    return made._insert(key, b"value", namespace, given, 0, until, until, 0, EPOCH, snap)


def test_what_is_deferred_is_neither_served_nor_stored_nor_valid() -> None:
    made = engine()
    assert put(made, 10) == "stored"
    made._defer(SPACE, TAG)
    assert made.get_nowait(KEY) is None
    assert made._peek(KEY) is None
    assert put(made, FAR) == "invalid"
    assert not made._valid(SPACE, EPOCH, FAR, TAG)
    made._deliver(SPACE, TAG, [], EPOCH, 50)
    assert put(made, 49) == "invalid"
    assert put(made, 50) == "stored"
    assert made.get_nowait(KEY) == b"value"


def test_a_deferred_rule_covers_labels_until_it_is_delivered() -> None:
    made = engine()
    assert put(made, 10) == "stored"
    made._defer(SPACE, [], [RULE])
    assert made.get_nowait(KEY) is None
    assert put(made, FAR) == "invalid"
    assert put(made, 10, label="content/blog/2023") == "stored"
    assert not made._valid(SPACE, EPOCH, FAR, [], LABEL)
    made._deliver(SPACE, [], [RULE], EPOCH + 1, 50)
    assert made._stamp(SPACE) == (EPOCH + 1, 50), "the authority's epoch comes with it"
    assert made._valid(SPACE, EPOCH + 1, 50, [], LABEL)


@pytest.mark.parametrize("packed", [None, b"", b"of no such text"], ids=["packed", "nothing", "else"])
def test_an_entry_in_memory_knows_its_label(packed: bytes | None) -> None:
    made = engine()
    assert put(made, 10, packed=packed) == "stored"
    made._raise_rules(SPACE, ["content/*/2023-*"], 20)
    assert made.get_nowait(KEY) == b"value"
    made._raise_rules(SPACE, [RULE], 20)
    assert made.get_nowait(KEY) is None
    assert put(made, 19, packed=packed) == "invalid"
    assert put(made, 20, packed=packed) == "stored"
    view = made._peek(KEY)
    assert view is not None
    if packed is not None:
        assert view.facts == packed, "the label's text is not among what comes back"


def test_forgotten_rules_cover_nothing() -> None:
    made = engine()
    made._raise_rules(SPACE, [RULE], 20)
    assert put(made, 19) == "invalid"
    made._forget_rules(SPACE, ["another", RULE])
    assert put(made, 19) == "stored"


def test_targets_and_rules_take_one_seq() -> None:
    made = engine()
    seq = made._raise(SPACE, TAG, rules=[RULE])
    assert made._stamp(SPACE) == (EPOCH, seq)
    for snap, valid in ((seq - 1, False), (seq, True)):
        assert made._valid(SPACE, EPOCH, snap, TAG) is valid
        assert made._valid(SPACE, EPOCH, snap, [], LABEL) is valid


def test_a_dry_run_counts_what_could_be_served() -> None:
    clock = ManualClock()
    made = engine(clock)
    put(made, 10)
    put(made, 10, key=OTHER, label=None, tags=())
    put(made, 10, key=b"e" * 32, until=clock.now)  # its time is over
    put(made, 10, key=b"n" * 32, namespace="another")
    one = (1, made._matching(SPACE, TAG, [])[1])
    assert one[1] > len(b"value") + len(LABEL)
    for targets, rules in (
        (TAG, []), ([], [RULE]), (TAG, [RULE]),
        (Engine._named_targets("default", labels=["content/"]), []),
        (Engine._named_targets("default", keys=[KEY]), []),
    ):  # fmt: skip
        assert made._matching(SPACE, targets, rules) == one
    assert made._matching(SPACE, [SPACE], [])[0] == 2
    assert made._matching(SPACE, [], ["content/*"]) == (0, 0)
    made._raise(SPACE, TAG, 20)
    assert made._matching(SPACE, TAG, []) == (0, 0), "what is invalid already"
    assert made._shards()[0]["entries"] == 4, "nothing was touched"


def test_facts_are_charged_what_they_take() -> None:
    """The formula of docs/how-to/size-the-tiers.md."""

    def charged(tags: tuple[str, ...], label: str | None) -> int:
        made = engine()
        assert put(made, 10, tags=tags, label=label) == "stored"
        value = -(-(33 + len(b"value")) // 16) * 16
        text = -(-len(pack_facts(Facts(tags=tags, label=label))) // 16) * 16
        return made._matching(SPACE, [SPACE], [])[1] - value - text

    assert charged(("a",), None) == charged(("a", "b", "c"), None) == 72
    assert charged(("a", "b", "c", "d"), None) == 72 + 4 * 8
    # A label counts with each of its folders; its text is among the packed facts already.
    assert charged((), "a/b/c") == 72
    assert charged(("a",), "a/b/c") == 72 + 4 * 8


HITS: dict[str, Callable[[Engine], object]] = {
    "bytes": lambda made: made.get_nowait(KEY),
    "keywords": lambda made: made.get_nowait(KEY, namespace="default"),
}


@pytest.mark.parametrize("hit", HITS)
def test_a_strict_engine_serves_only_while_vouched_for(hit: str) -> None:
    clock = ManualClock()
    made = engine(clock, strict=True)
    assert put(made, 10) == "stored"
    assert HITS[hit](made) is None
    made._vouch(clock.monotonic() + 2_000_000)
    assert HITS[hit](made) == b"value"
    clock.advance(2)
    assert HITS[hit](made) == b"value"
    clock.set(0)
    clock.advance(0.000_001)
    assert HITS[hit](made) is None
    assert made._peek(KEY) is not None
    assert made._view(KEY) is not None
    made._vouch(clock.monotonic())
    assert HITS[hit](made) == b"value"


def test_by_default_a_hit_needs_nobody_to_vouch() -> None:
    made = engine()
    assert put(made, 10) == "stored"
    assert made.get_nowait(KEY) == b"value"


def test_the_system_s_monotonic_clock_vouches() -> None:
    clock = Clock()
    made = engine(clock, strict=True)
    assert put(made, 10) == "stored"
    made._vouch(clock.monotonic() + 3_600_000_000)
    assert made.get_nowait(KEY) == b"value"
    made._vouch(clock.monotonic() - 1)
    assert made.get_nowait(KEY) is None
