"""The breaker against an oracle that keeps the whole history and looks at it anew each time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from llmcache_fast.tiers.breaker import Breaker, BreakerOptions, Outcome, Permit

OPTIONS = BreakerOptions(
    window=6, window_seconds=10.0, least=3, ratio=0.5, backoff=1.0, max_backoff=5.0, probes=2
)
JITTER = 0.25


class Oracle:
    """What `Breaker` promises, at any cost: a list of all that happened."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any, float]] = []  # (what, detail, when)
        self.permits: list[int] = []  # by permit: number of the event that gave it

    def state(self, now: float) -> str:
        last = self.last_change()
        return "closed" if last is None else self.events[last][0]

    def last_change(self) -> int | None:
        changes = [n for n, event in enumerate(self.events) if event[0] in ("closed", "open", "half-open")]
        return changes[-1] if changes else None

    def since_change(self) -> list[tuple[str, Any, float]]:
        last = self.last_change()
        return self.events if last is None else self.events[last + 1 :]

    def failed_probes(self) -> int:
        failed = 0
        for what, detail, _ in self.events:
            if what == "closed":
                failed = 0
            elif what == "open" and detail == "probe":
                failed += 1
        return failed

    def retry_at(self) -> float:
        last = self.last_change()
        assert last is not None
        backoff: float = min(OPTIONS.backoff * 2 ** self.failed_probes(), OPTIONS.max_backoff)
        return self.events[last][2] + backoff * (1 - JITTER / 2)

    def admit(self, now: float) -> str | None:
        state = self.state(now)
        if state == "open":
            if now < self.retry_at():
                return None
            self.events.append(("half-open", None, now))
        if state != "closed":
            probing = sum({"probe": 1, "probed": -1}.get(what, 0) for what, _, _ in self.since_change())
            if probing:
                return None
        kind = "call" if state == "closed" else "probe"
        self.events.append((kind, None, now))
        self.permits.append(len(self.events) - 1)
        return kind

    def ended(self, permit: int, outcome: Outcome, now: float) -> None:
        given_at = self.permits[permit]
        last = self.last_change()
        if last is not None and given_at < last:
            return  # of another life
        if self.events[given_at][0] == "probe":
            self.events.append(("probed", outcome, now))
            good = sum(1 for what, how, _ in self.since_change() if (what, how) == ("probed", "good"))
            if outcome == "bad":
                self.events.append(("open", "probe", now))
            elif good >= OPTIONS.probes:
                self.events.append(("closed", None, now))
        elif outcome != "unknown":
            self.events.append(("ended", outcome, now))
            ends = [event for event in self.since_change() if event[0] == "ended"][-OPTIONS.window :]
            ends = [event for event in ends if event[2] >= now - OPTIONS.window_seconds]
            bad = sum(how == "bad" for _, how, _ in ends)
            if outcome == "bad" and len(ends) >= OPTIONS.least and bad / len(ends) >= OPTIONS.ratio:
                self.events.append(("open", "calls", now))


steps = st.lists(
    st.one_of(
        st.tuples(st.just("admit"), st.integers(1, 5)),
        st.tuples(st.just("end"), st.integers(0, 30), st.sampled_from(["good", "bad", "bad", "unknown"])),
        st.tuples(st.just("pass"), st.sampled_from([0.1, 0.875, 1.0, 4.0, 11.0])),
    ),
    max_size=80,
)


def check(breaker: Breaker, script: list[tuple[Any, ...]]) -> None:
    oracle = Oracle()
    now = 100.0
    under_way: list[tuple[int, Permit]] = []
    single = [one for step in script for one in [step] * (step[1] if step[0] == "admit" else 1)]
    for step in single:
        if step[0] == "pass":
            now += step[1]
        elif step[0] == "admit":
            admits = breaker.admits(now)
            permit = breaker.admit(now)
            expected = oracle.admit(now)
            assert admits == (permit is not None)
            assert (None if permit is None else "probe" if permit.probe else "call") == expected
            if permit is not None:
                under_way.append((len(oracle.permits) - 1, permit))
        elif under_way:
            number, permit = under_way.pop(step[1] % len(under_way))
            breaker.ended(permit, step[2], now)
            oracle.ended(number, step[2], now)
        assert breaker.state == oracle.state(now)
        if breaker.state == "open":
            assert breaker.retry_at == pytest.approx(oracle.retry_at())


@given(steps)
def test_it_does_what_the_oracle_says(script: list[tuple[Any, ...]]) -> None:
    check(Breaker(OPTIONS, rng=lambda: JITTER), script)


class TwoProbes(Breaker):
    def admit(self, now: float) -> Permit | None:
        permit = super().admit(now)
        self._probing = False
        return permit


class BusyIsFailure(Breaker):
    def ended(self, permit: Permit, outcome: Outcome, now: float) -> None:
        super().ended(permit, "bad" if outcome == "unknown" else outcome, now)


class LateResultsCount(Breaker):
    def ended(self, permit: Permit, outcome: Outcome, now: float) -> None:
        super().ended(Permit(self._generation, self.state == "half-open"), outcome, now)


class OneProbeCloses(Breaker):
    def ended(self, permit: Permit, outcome: Outcome, now: float) -> None:
        self._good_probes = OPTIONS.probes - 1
        super().ended(permit, outcome, now)


class NeverForgets(Breaker):
    def _is_out(self, now: float) -> bool:
        self._ended = type(self._ended)(((now, bad) for _, bad in self._ended), OPTIONS.window)
        return super()._is_out(now)


class AbandonedProbeHoldsThePlace(Breaker):
    def ended(self, permit: Permit, outcome: Outcome, now: float) -> None:
        if not (permit.probe and outcome == "unknown"):
            super().ended(permit, outcome, now)


class EagerAgain(Breaker):
    def _open(self, now: float) -> None:
        self._failed_probes = 0
        super()._open(now)


@pytest.mark.parametrize(
    "planted",
    [
        TwoProbes,
        BusyIsFailure,
        LateResultsCount,
        OneProbeCloses,
        NeverForgets,
        AbandonedProbeHoldsThePlace,
        EagerAgain,
    ],
)
def test_the_oracle_catches_a_planted_bug(planted: type[Breaker]) -> None:
    @settings(max_examples=3_000, derandomize=True, database=None, phases=[Phase.generate])
    @given(steps)
    def search(script: list[tuple[Any, ...]]) -> None:
        check(planted(OPTIONS, rng=lambda: JITTER), script)

    with pytest.raises(AssertionError):
        search()


def test_options_that_cannot_work_are_refused() -> None:
    for wrong in (
        {"window": 0},
        {"least": 30},
        {"probes": 0},
        {"ratio": 0.0},
        {"ratio": 1.1},
        {"backoff": 0.0},
        {"max_backoff": 0.1},
        {"window_seconds": 0.0},
    ):
        with pytest.raises(ValueError, match="must be"):
            BreakerOptions(**wrong)


def test_the_back_off_grows_to_its_end_and_no_further() -> None:
    options = BreakerOptions(least=1, window=1)
    breaker = Breaker(options, rng=lambda: 0.0)
    waits = []
    now = 0.0
    for _ in range(2_000):
        permit = breaker.admit(now)
        assert permit is not None
        breaker.ended(permit, "bad", now)
        waits.append(breaker.retry_at - now)
        now = breaker.retry_at
    assert waits[:5] == [0.25, 0.5, 1.0, 2.0, 2.0]
    assert set(waits[4:]) == {2.0}
    assert breaker.opened == 1
