"""What a call asks is taken apart once, however often it is asked; what is kept is bounded, and forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from llmcache_fast import LLMCache, SemanticOptions
from llmcache_fast._options import CallOptions
from llmcache_fast._questions import OVERHEAD, ROOM, Questions, Subject
from llmcache_fast.semantic.vector_cache import digest_of
from llmcache_fast.testing import FakeEmbedder

SPACE = bytes(16)


def options(question: Any = None) -> CallOptions:
    return CallOptions(ttl=1, stale_while_revalidate=0, stale_if_error=0, question=question)


def ask(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **fields}


class Setting:
    def __init__(self, cache: LLMCache, question: Callable[[Any], Any] | None = None) -> None:
        self.cache = cache
        self.questions = Questions(cache, SemanticOptions(embedder=FakeEmbedder(), question=question), SPACE)

    def subject(self, request: Any, question: Any = None, namespace: str = "default") -> Subject:
        key = self.cache.fingerprint(request, namespace=namespace)
        return Subject(key, request, namespace, None, None, options(question))


@pytest.fixture
async def setting() -> AsyncIterator[Setting]:
    async with LLMCache() as cache:
        yield Setting(cache)


async def test_what_is_asked_again_is_not_taken_apart_again(setting: Setting) -> None:
    first = setting.questions.asked(setting.subject(ask("one")))
    assert first is not None
    assert (first.text, first.digest) == ("one", digest_of("one"))
    assert setting.questions.asked(setting.subject(ask("one"))) is first
    setting.questions.forget()
    again = setting.questions.asked(setting.subject(ask("one")))
    assert again is not None
    assert again is not first
    assert again.partition == first.partition


async def test_a_partition_is_all_but_the_text(setting: Setting) -> None:
    def partition(*args: Any, **fields: Any) -> bytes:
        asked = setting.questions.asked(setting.subject(*args, **fields))
        assert asked is not None
        return asked.partition

    home = partition(ask("one"))
    assert partition(ask("two")) == home
    apart = [partition(ask("one", temperature=0)), partition(ask("one"), namespace="tenant")]
    assert len({home, *apart}) == 3


async def test_a_fingerprint_alone_asks_nothing(setting: Setting) -> None:
    subject = setting.subject(ask("one"))
    assert setting.questions.asked(subject) is not None
    assert setting.questions.asked(subject._replace(request=subject.key)) is None


async def test_what_the_caller_says_it_asks_counts_for_this_call_alone(setting: Setting) -> None:
    request = ask("one")
    ways: list[Any] = [("other", {}), lambda _: ("other", {})]
    for question in ways:
        asked = setting.questions.asked(setting.subject(request, question))
        assert asked is not None
        assert asked.text == "other"
        plain = setting.questions.asked(setting.subject(request))
        assert plain is not None
        assert plain.text == "one"


async def test_an_owner_who_takes_requests_apart_is_asked_each_time() -> None:
    said = iter("abc")
    async with LLMCache() as cache:
        setting = Setting(cache, lambda request: (next(said), request))
        found = [setting.questions.asked(setting.subject(ask("one"))) for _ in range(3)]
        assert [asked.text for asked in found if asked is not None] == ["a", "b", "c"]


async def test_an_entry_that_answers_another_question_now_is_taken_apart_anew(setting: Setting) -> None:
    key = bytes(32)
    first = setting.questions.stored(key, "one")
    assert setting.questions.stored(key, "one") is first
    assert setting.questions.stored(key, "two").text == "two"


async def test_what_is_kept_is_bounded_and_the_least_recently_used_goes(setting: Setting) -> None:
    long = "word " * 200
    room = ROOM // (len(long) + OVERHEAD)
    names = [number.to_bytes(32, "big") for number in range(room + 1)]
    first, second, *_ = [setting.questions.stored(name, long) for name in names[:-1]]
    assert setting.questions.stored(names[0], long) is first
    setting.questions.stored(names[-1], long)
    assert setting.questions.stored(names[0], long) is first
    assert setting.questions.stored(names[1], long) is not second
    huge = "word " * ROOM
    assert setting.questions.stored(names[0], huge) is not setting.questions.stored(names[0], huge)


async def test_a_request_that_has_changed_since_is_not_remembered(setting: Setting) -> None:
    request = ask("one")
    subject = setting.subject(request)
    request["messages"][0]["content"] = "two"
    changed = setting.questions.asked(subject)
    assert changed is not None
    assert changed.text == "two"
    again = setting.questions.asked(setting.subject(ask("one")))
    assert again is not None
    assert again.text == "one"
