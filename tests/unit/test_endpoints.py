"""Which calls may be cached."""

from __future__ import annotations

import pytest

from llmcache_fast.integrations.wire.endpoints import endpoint_of, stateful_field


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/chat/completions", "chat"),
        ("/openai/deployments/d/chat/completions", "chat"),
        ("/v1/responses", "responses"),
        ("/v1/responses/", "responses"),
        ("/anthropic/v1/messages", "messages"),
        ("/v1/completions", "completions"),
        ("/v1/embeddings", "embeddings"),
        ("/v1/threads/t/messages", None),
        ("/v1/messages/batches", None),
        ("/v1/responses/resp_1/cancel", None),
        ("/v1/audio/speech", None),
    ],
)
def test_endpoints(path: str, name: str | None) -> None:
    endpoint = endpoint_of("POST", path)
    assert (endpoint.name if endpoint else None) == name
    assert endpoint_of("GET", path) is None


def test_stateful_fields() -> None:
    assert stateful_field({"store": False, "background": None}) is None
    assert stateful_field({"store": True}) == "store"
    assert stateful_field({"conversation": {"id": "c"}}) == "conversation"
