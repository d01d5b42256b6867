"""One flight: landing, who waits for whom, and an exception for each waiter."""

from __future__ import annotations

from typing import Self

from llmcache_fast import ComputationError
from llmcache_fast.actors.flight import Flight, own_exception


def flight(number: int) -> Flight:
    return Flight(b"k" * 32, "n", 1, number, {1}, ())


async def test_it_lands_once_and_its_end_is_told_of_an_error() -> None:
    told: list[BaseException | None] = []
    landed, failed = flight(1), flight(2)
    landed.on_end = failed.on_end = told.append
    early = landed.done()
    assert landed.land("first")
    assert not landed.land("second")
    assert (landed.value, early.is_set(), landed.done().is_set()) == ("first", True, True)
    error = OSError()
    assert failed.land(error=error)
    assert failed.done().is_set()
    assert told == [error]


async def test_who_waits_for_whom_is_followed_through_others_and_circles() -> None:
    first, second, third = flight(1), flight(2), flight(3)
    first.blocked_on[second] += 1
    second.blocked_on[first] += 1
    assert first.reaches(first)
    assert first.reaches(second)
    assert not first.reaches(third)
    second.blocked_on[third] += 1
    assert first.reaches(third)
    assert not third.reaches(first)


class Picky(Exception):  # noqa: N818 - an SDK's
    def __init__(self, message: str, *, response: object) -> None:
        super().__init__(message)
        self.response = response


class Uncopyable(Exception):  # noqa: N818 - an SDK's
    def __new__(cls, secret: object = None) -> Self:
        if secret is not Uncopyable:
            raise RuntimeError
        return super().__new__(cls)


def test_exceptions_of_ones_own() -> None:
    original = Picky("m", response="r")
    own = own_exception(original)
    assert type(own) is Picky
    assert (own.args, own.response, own.__cause__) == (("m",), "r", original)
    system = own_exception(FileNotFoundError(2, "no such file", "name"))
    assert isinstance(system, FileNotFoundError)
    assert (system.errno, system.filename) == (2, "name")
    refused = Uncopyable(Uncopyable)
    refused.args = ()
    told = own_exception(refused)
    assert isinstance(told, ComputationError)
    assert told.__cause__ is refused
