"""What of a call is in its key."""

from __future__ import annotations

from typing import Any

import pytest

from llmcache_fast import fingerprint
from llmcache_fast.integrations.wire.endpoints import endpoint_of
from llmcache_fast.integrations.wire.key import KeyRules, is_credential, split_url

CHAT = {"model": "m", "messages": [{"role": "user", "content": "q"}]}


def key(url: str = "https://api.openai.com/v1/chat/completions", body: dict[str, Any] | None = None) -> bytes:
    endpoint = endpoint_of("POST", "/v1/chat/completions")
    assert endpoint is not None
    headers = [("authorization", "Bearer k"), ("host", "api.openai.com")]
    return fingerprint(KeyRules(fingerprint).request_of(endpoint, "POST", url, headers, body or CHAT, None))


def test_documented_defaults_hold_on_the_providers_own_hosts_alone() -> None:
    explicit = {**CHAT, "temperature": 1}
    assert key() == key(body=explicit)
    elsewhere = "http://127.0.0.1:8000/v1/chat/completions"
    assert key(elsewhere) != key(elsewhere, body=explicit)
    lookalike = "https://api.openai.com.evil.test/v1/chat/completions"
    assert key(lookalike) != key(lookalike, body=explicit)


def test_wire_facts_count() -> None:
    assert len({key(), key(body={**CHAT, "stream": True}), key(body={**CHAT, "stream": False})}) == 2
    with_usage = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    assert key(body=with_usage) != key(body={**CHAT, "stream": True})


@pytest.mark.parametrize(
    "name",
    [
        "authorization",
        "x-api-key",
        "api-key",
        "x-goog-api-key",
        "helicone-auth",
        "x-token",
        "cookie",
        "key",
        "sig",
    ],
)
def test_names_taken_for_credentials(name: str) -> None:
    assert is_credential(name)


@pytest.mark.parametrize(
    "name", ["openai-organization", "anthropic-beta", "api-version", "accept", "x-keyboard"]
)
def test_names_not_taken_for_credentials(name: str) -> None:
    assert not is_credential(name)


def test_credentials_leave_the_url() -> None:
    url, found = split_url("https://u:p@host.test:8443/v1/x?api-version=1&key=abc&a=%20b#f")
    assert url == "https://host.test:8443/v1/x?api-version=1&a=+b"
    assert found == {"url user": "u:p", "query key": "abc"}
    assert split_url("https://host.test/x?b=1&a=%20&a=") == ("https://host.test/x?b=1&a=%20&a=", {})
