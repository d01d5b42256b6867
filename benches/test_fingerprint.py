"""Fingerprints of requests: how much longer than BLAKE3 over bytes that someone else has already made.

Rows: a 4.3 KB chat request, a 100 KB conversation growing by one turn, a prompt of 1 MB.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
from blake3 import blake3
from langchain_core.load import dumps as langchain_dumps
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from benches.figure import OURS, Figure, from_times
from benches.peers import litellm_cache
from benches.rounds import Contender, Times, interleave, pedantic
from benches.workloads import (
    Conversation,
    Request,
    asked_chat_request,
    chat_request,
    cold_chat_request,
    megabyte_request,
    parsed_chat_request,
)
from llmcache_fast import fingerprint

BASE = "blake3 over ready bytes"
MESSAGE_TYPES = {"system": SystemMessage, "user": HumanMessage, "assistant": AIMessage}


def _each(call: Callable[[Any], object]) -> Callable[[list[Any]], None]:
    def run(batch: list[Any]) -> None:
        for item in batch:
            call(item)

    return run


def langchain_messages(request: Request) -> tuple[list[Any], str]:
    """A chat model's two cache keys are dumped from its message objects and from its other parameters."""
    messages = [MESSAGE_TYPES[message["role"]](message["content"]) for message in request["messages"]]
    others = {name: value for name, value in request.items() if name != "messages"}
    return messages, json.dumps(others, sort_keys=True)


def contenders(make: Callable[[], Request]) -> dict[str, Contender]:
    """Everyone's way to a key; each gets requests that `make` made outside the timing."""
    litellm_key = litellm_cache().get_cache_key

    def batch(size: int) -> list[Request]:
        return [make() for _ in range(size)]

    return {
        BASE: Contender(
            # The same bytes over and over: they never leave the processor's caches.
            lambda size: [orjson.dumps(make())] * size,
            _each(lambda data: blake3(data).digest()),
        ),
        OURS: Contender(batch, _each(fingerprint)),
        "orjson+blake3": Contender(
            batch, _each(lambda request: blake3(orjson.dumps(request, option=orjson.OPT_SORT_KEYS)).digest())
        ),
        "json+sha256": Contender(
            batch,
            _each(lambda request: hashlib.sha256(json.dumps(request, sort_keys=True).encode()).digest()),
        ),
        "litellm": Contender(batch, _each(lambda request: litellm_key(**request))),
        "langchain-core": Contender(
            lambda size: [langchain_messages(request) for request in batch(size)],
            _each(lambda key: (langchain_dumps(key[0]), key[1])),
        ),
    }


def _rename(times: Times, name: str) -> Times:
    return Times({(name if key == OURS else key): value for key, value in times.rounds.items()})


def chat(rounds: int) -> Iterator[Figure]:
    sizes = {"langchain-core": 2, "litellm": 5, "json+sha256": 10}
    cold = interleave(contenders(cold_chat_request), size=20, rounds=6 * rounds, sizes=sizes)
    yield from_times("fingerprint of a 4.3 KB chat request, cold memo", cold, BASE, target=1.3)
    parsed = interleave(contenders(parsed_chat_request), size=20, rounds=6 * rounds, sizes=sizes)
    yield from_times("fingerprint of a 4.3 KB chat request, known texts in new strings", parsed, BASE)
    entrants = contenders(chat_request)
    # What an agent asks: all strings are known but the last one.
    another = "llmcache_fast (another last message)"
    entrants[another] = contenders(asked_chat_request)[OURS]
    warm = interleave(entrants, size=20, rounds=6 * rounds, sizes=sizes)
    yield from_times("fingerprint of a 4.3 KB chat request, warm memo", warm, BASE, target=0.7)


def conversation(rounds: int) -> Iterator[Figure]:
    grown = contenders(Conversation().grown)
    # Turns five times as long, the new ones excepted: what is remembered costs nothing, however long it is.
    long_turns = Conversation(reply=15_000)
    long_turns.reply = Conversation().reply
    grown["llmcache_fast (turns 5x as long)"] = contenders(long_turns.grown)[OURS]
    same_strings = "llmcache_fast (same strings in new dicts)"
    grown[same_strings] = contenders(Conversation().rebuilt)[OURS]
    times = interleave(grown, size=20, rounds=4 * rounds, sizes={"langchain-core": 1, "litellm": 1})
    flat = times.ratio("llmcache_fast (turns 5x as long)", OURS)
    yield from_times(
        "fingerprint of a 100 KB conversation growing by one turn, warm memo",
        times,
        BASE,
        target=0.2,
        notes=[f"with turns 5x as long (420 KB): {flat.median:.2f}x our time for 100 KB (flat is 1.00)"],
    )


def megabyte(rounds: int) -> Iterator[Figure]:
    entrants = contenders(megabyte_request)
    times = interleave(entrants, size=1, rounds=rounds)
    yield from_times("fingerprint of a 1 MB prompt, cold", times, BASE, target=1.5)


def figures(rounds: int) -> Iterator[Figure]:
    yield from chat(rounds)
    yield from conversation(rounds)
    yield from megabyte(4 * rounds)


NAMES = list(contenders(chat_request))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "make", [cold_chat_request, parsed_chat_request, chat_request], ids=["cold", "parsed", "warm"]
)
def test_chat_request(benchmark: Any, make: Callable[[], Request], name: str) -> None:
    pedantic(benchmark, contenders(make)[name], size=50)


@pytest.mark.parametrize("name", NAMES)
def test_growing_conversation(benchmark: Any, name: str) -> None:
    pedantic(benchmark, contenders(Conversation().grown)[name], size=5)


@pytest.mark.parametrize("name", NAMES)
def test_megabyte(benchmark: Any, name: str) -> None:
    pedantic(benchmark, contenders(megabyte_request)[name], size=2)
