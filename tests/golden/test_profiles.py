"""The rules of the profiles: the published data, and that the core follows it field by field."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import llmcache_fast

PROFILES: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "profiles_v1.json").read_text())
DOCUMENTATION = (Path(__file__).parents[2] / "docs" / "reference" / "fingerprint.md").read_text()
TRANSPORT = {"stream", "stream_options", "timeout", "extra_headers", "max_retries"}

dropped = [(profile, field) for profile, rules in PROFILES.items() for field in rules["drop"]]
defaulted = [(p, field, value) for p, rules in PROFILES.items() for field, value in rules["default"].items()]
nullable = [(profile, field) for profile, rules in PROFILES.items() for field in rules["nullable"]]
ordered = [(profile, path) for profile, rules in PROFILES.items() for path in rules["ordered"]]

REQUEST = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def fingerprint(profile: str, **fields: object) -> bytes:
    found: bytes = llmcache_fast.fingerprint({**REQUEST, **fields}, profile=profile)
    return found


def test_the_profiles() -> None:
    assert set(PROFILES) == {"generic", "openai.chat", "openai.responses", "anthropic.messages"}
    assert PROFILES["generic"] == {
        "drop": dict.fromkeys(TRANSPORT, "transport"),
        "default": {},
        "nullable": [],
        "ordered": [],
    }


@pytest.mark.parametrize("profile", PROFILES)
def test_each_field_has_at_most_one_rule(profile: str) -> None:
    rules = PROFILES[profile]
    assert set(rules) == {"drop", "default", "nullable", "ordered"}
    assert rules["drop"].keys() >= TRANSPORT
    assert not rules["drop"].keys() & (rules["default"].keys() | set(rules["nullable"]))
    assert len(set(rules["nullable"])) == len(rules["nullable"])
    assert all(isinstance(value, bool | int | float | str) for value in rules["default"].values())
    assert not any(path.split(".")[0] in rules["drop"] for path in rules["ordered"])


@pytest.mark.parametrize("profile", PROFILES)
def test_the_documentation_names_every_rule(profile: str) -> None:
    rules = PROFILES[profile]
    for field in [*rules["drop"], *rules["default"], *rules["nullable"]]:
        assert f"`{field}`" in DOCUMENTATION
    for path in rules["ordered"]:
        assert path.split(".")[-1] in DOCUMENTATION


@pytest.mark.parametrize(("profile", "field"), dropped)
@pytest.mark.parametrize("value", [None, True, 1.5, "x", [1], {"a": {}}, object(), math.nan, b"x"], ids=type)
def test_a_dropped_field_never_counts(profile: str, field: str, value: object) -> None:
    assert fingerprint(profile, **{field: value}) == fingerprint(profile)


@pytest.mark.parametrize(("profile", "field"), dropped)
def test_a_dropped_name_counts_below_the_top(profile: str, field: str) -> None:
    assert fingerprint(profile, nested={field: 1}) != fingerprint(profile, nested={})
    assert fingerprint(profile, **{field.upper(): 1}) != fingerprint(profile)
    assert fingerprint(profile, **{field + "_": 1}) != fingerprint(profile)


@pytest.mark.parametrize(("profile", "field", "value"), defaulted)
def test_a_default_equals_absent(profile: str, field: str, value: Any) -> None:
    absent = fingerprint(profile)
    assert fingerprint(profile, **{field: value}) == absent
    assert fingerprint("generic", **{field: value}) != fingerprint("generic")
    assert fingerprint(profile, nested={field: value}) != fingerprint(profile, nested={})
    others: list[object] = [2, 0.5, "other", [], {}, [value], str(value) + "x", not value]
    if isinstance(value, bool):
        others += [int(value), float(value), str(value).lower()]
    elif isinstance(value, int):
        assert fingerprint(profile, **{field: float(value)}) == absent
        others += [bool(value), str(value), value + 1e-9]
    else:
        others += [value.upper(), value.encode(), ""]
    for other in others:
        assert fingerprint(profile, **{field: other}) != absent, other


@pytest.mark.parametrize("profile", PROFILES)
def test_null_equals_absent_only_where_the_rules_say_so(profile: str) -> None:
    rules = PROFILES[profile]
    fields = {
        field for rules in PROFILES.values() for field in [*rules["default"], *rules["nullable"], "zzz"]
    }
    for field in fields - rules["drop"].keys():
        same = fingerprint(profile, **{field: None}) == fingerprint(profile)
        assert same == (field in rules["nullable"]), field


@pytest.mark.parametrize("profile", PROFILES)
def test_fields_without_a_rule_count(profile: str) -> None:
    fields = ["user", "metadata", "safety_identifier", "tools", "tool_choice", "system", "seed", "max_tokens",
              "reasoning_effort", "response_format", "prompt_cache_options", "cache_control", "unknown",
              "extra_body", "extra_query", "thinking", "modalities", "user_profile_id"]  # fmt: skip
    seen = {fingerprint(profile), *(fingerprint(profile, **{field: "v"}) for field in fields)}
    assert len(seen) == len(fields) + 1


def placed(path: str, value: object) -> Any:
    for step in reversed(path.split(".")):
        value = [{}, value] if step == "*" else {step: value}
    return value


@pytest.mark.parametrize(("profile", "path"), ordered)
def test_order_counts_below_an_ordered_path_and_nowhere_else(profile: str, path: str) -> None:
    one, other = (
        {"b": {"y": 1, "x": 2}, "a": [{"q": 1, "p": 2}]},
        {"a": [{"p": 2, "q": 1}], "b": {"x": 2, "y": 1}},
    )
    inner = {"b": {"x": 2, "y": 1}, "a": [{"q": 1, "p": 2}]}

    def at(where: str, value: object, profile: str = profile) -> bytes:
        found: bytes = llmcache_fast.fingerprint(placed(where, value), profile=profile)
        return found

    assert len({at(path, value) for value in (one, other, inner)}) == 3
    assert at(path, one, "generic") == at(path, other, "generic")
    above = path.rpartition(".")[0]
    assert at(f"{above}.other", one) == at(f"{above}.other", other)
    assert at(f"deeper.{path}", one) == at(f"deeper.{path}", other)
    if "*" in path:
        assert at(path.replace("*", "items"), one) == at(path.replace("*", "items"), other)
        starred = json.loads(json.dumps(placed(path.replace("*", "STAR"), one)).replace("STAR", "*"))
        back = json.loads(json.dumps(placed(path.replace("*", "STAR"), other)).replace("STAR", "*"))
        assert llmcache_fast.fingerprint(starred, profile=profile) == llmcache_fast.fingerprint(
            back, profile=profile
        )


# Fields of the rules that the SDK's own types do not have, and why they are there all the same.
NOT_IN_THE_TYPES = {
    "openai.chat": set(),
    "openai.responses": set(),
    "anthropic.messages": {
        "temperature",  # older models take it, newer types have left it out
        "stream_options",  # OpenAI's, dropped everywhere
        "output_format",  # beta
    },
}


@pytest.mark.parametrize("profile", sorted(NOT_IN_THE_TYPES))
def test_the_rules_name_fields_that_exist(profile: str) -> None:
    """A misspelt rule would do nothing, silently."""
    if profile.startswith("openai"):
        pytest.importorskip("openai")
        from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming as Chat
        from openai.types.responses.response_create_params import ResponseCreateParamsStreaming as Responses

        fields = set(get_type_hints(Chat if profile == "openai.chat" else Responses))
    else:
        pytest.importorskip("anthropic")
        from anthropic.types.message_create_params import MessageCreateParamsStreaming

        fields = set(get_type_hints(MessageCreateParamsStreaming))
    rules = PROFILES[profile]
    named = {
        *rules["drop"],
        *rules["default"],
        *rules["nullable"],
        *(p.split(".")[0] for p in rules["ordered"]),
    }
    named -= {"timeout", "extra_headers", "max_retries"}  # the SDK's own, not the API's
    assert named - fields == NOT_IN_THE_TYPES[profile]
