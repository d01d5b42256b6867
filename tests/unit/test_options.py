"""Options: inherited where not given, checked with a sentence that helps."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from llmcache_fast import ConfigurationError, LLMCache
from llmcache_fast._options import (
    _ENVIRONMENT,
    UNSET,
    Options,
    call_options,
    from_environment,
    label_of,
    names,
    namespace_of,
    seconds,
    size_in_bytes,
)

BASE = Options(ttl=100.0, stale_while_revalidate=7.0)


def test_a_call_inherits_what_it_does_not_say() -> None:
    options = call_options(BASE, {"stale_if_error": 3, "tags": ["a", "b", "a"]})
    assert (options.ttl, options.stale_while_revalidate, options.stale_if_error) == (100.0, 7.0, 3.0)
    assert options.tags == ("a", "b")
    assert call_options(BASE, {"ttl": UNSET}).ttl == 100.0
    assert call_options(BASE, {"ttl": None}).ttl is None, "None is a value of its own"
    assert call_options(BASE, {"ttl": timedelta(minutes=2)}).ttl == 120.0
    assert call_options(BASE, None) == call_options(BASE, {})


def test_an_unknown_option_of_a_call_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="no such option: tll"):
        call_options(BASE, {"tll": 5})


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "5", True, None, timedelta(-1)])
def test_durations_are_numbers_from_zero(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="ttl: must be a number of seconds"):
        seconds("ttl", value)


@pytest.mark.parametrize(
    "value", ["tag", 5, [""], ["x" * 257], [5], [None], ["\ud800"], [str(n) for n in range(257)]]
)
def test_names_are_a_list_of_short_strings(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="tags: "):
        names("tags", value)


@pytest.mark.parametrize("value", ["", "/a", "a//b", "a/*", "*", 5, "x" * 513, "\udfff"])
def test_labels_are_plain_paths(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="label: "):
        label_of(value)
    assert label_of("content/blog/ai-trends") == "content/blog/ai-trends"


@pytest.mark.parametrize("value", ["", 5, None, "x" * 129, "\ud800"])
def test_namespaces(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="namespace: "):
        namespace_of(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10GiB", 10 << 30),
        ("512 MB", 512_000_000),
        ("1.5k", 1536),
        ("7", 7),
        (9, 9),
        (" 2TiB ", 2 << 40),
        ("3b", 3),
    ],
)
def test_sizes(text: Any, value: int) -> None:
    assert size_in_bytes("memory", text) == value


@pytest.mark.parametrize("text", ["", "GiB", "-1", "1 EiB", 1.5, True, -1, None])
def test_sizes_that_are_none(text: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"memory is .*: write a number and a unit"):
        size_in_bytes("memory", text)


@pytest.mark.parametrize(
    "options",
    [
        {"ttl": -1},
        {"memory": "1KiB"},
        {"jitter": 0.6},
        {"jitter": "0.1"},
        {"on_abandon": "stop"},
        {"strict": "no"},
        {"normalize": "nfc"},
        {"max_orphans": -1},
        {"deadline": 0},
        {"namespace": ""},
        {"profile": "openai"},
        {"tiers": "disk:///x"},
        {"tiers": ["redis://127.0.0.1?unknown=1"]},
        {"tiers": ["ftp://127.0.0.1"]},
        {"lease_wait": -1},
        {"tiers": ["disk://x"]},
    ],
    ids=str,
)
def test_a_cache_that_cannot_work_is_not_made(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        LLMCache(**options)
    assert next(iter(options)) in str(caught.value)


def test_the_environment() -> None:
    found = from_environment(
        {"LLMCACHE_TIERS": "disk:///a, disk:///b,", "LLMCACHE_TTL": "None", "LLMCACHE_DEADLINE": "2.5",
         "LLMCACHE_MEMORY": "1MiB", "HOME": "/", "LLMCACHE_POSTGRES_URL": "of the command line"}
    )  # fmt: skip
    assert found == {"tiers": ["disk:///a", "disk:///b"], "ttl": None, "deadline": 2.5, "memory": "1MiB"}
    with pytest.raises(ConfigurationError, match=r"LLMCACHE_TLL.*known are LLMCACHE_TIERS"):
        from_environment({"LLMCACHE_TLL": "5"})
    with pytest.raises(ConfigurationError, match="LLMCACHE_TTL is 'soon'"):
        from_environment({"LLMCACHE_TTL": "soon"})


def test_what_the_environment_says_is_of_the_option_s_kind() -> None:
    said = {
        "LLMCACHE_STRICT": ("1", True),
        "LLMCACHE_COMPRESS": ("0", False),
        "LLMCACHE_JITTER": ("0.2", 0.2),
        "LLMCACHE_MAX_ORPHANS": ("7", 7),
        "LLMCACHE_ON_ABANDON": ("cancel", "cancel"),
        "LLMCACHE_NORMALIZE": ("none", None),
    }
    assert from_environment({name: text for name, (text, _) in said.items()}) == {
        _ENVIRONMENT[name]: value for name, (_, value) in said.items()
    }
    for name, text in (("STRICT", "yes"), ("MAX_BACKGROUND", "1.5"), ("JITTER", "little")):
        with pytest.raises(ConfigurationError, match=f"LLMCACHE_{name} is '{text}': write"):
            from_environment({f"LLMCACHE_{name}": text})


def test_each_option_that_text_can_say_has_a_variable() -> None:
    no_text = {"admit", "prices", "secrecy", "semantic", "clock"}
    assert set(_ENVIRONMENT.values()) == set(LLMCache.__init__.__kwdefaults__ or ()) - no_text
