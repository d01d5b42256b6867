"""Which calls may be cached at all: known paths, and bodies that ask for nothing stateful."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Endpoint(NamedTuple):
    """A kind of call that the transports cache."""

    name: str
    """`chat`, `responses`, `messages`, `completions` or `embeddings`."""
    suffix: str
    """How the URL's path ends."""
    profile: str
    """The profile whose rules apply to the body."""


ENDPOINTS = (
    Endpoint("chat", "/chat/completions", "openai.chat"),
    Endpoint("responses", "/responses", "openai.responses"),
    # The version segment keeps out `/v1/threads/{id}/messages`, which creates a message in a thread.
    Endpoint("messages", "/v1/messages", "anthropic.messages"),
    Endpoint("completions", "/completions", "generic"),
    Endpoint("embeddings", "/embeddings", "generic"),
)

_STATEFUL = ("background", "store", "previous_response_id", "conversation", "container")


def endpoint_of(method: str, path: str) -> Endpoint | None:
    """The endpoint of a call, or None when it passes through untouched."""
    if method != "POST":
        return None
    path = path.rstrip("/")
    return next((endpoint for endpoint in ENDPOINTS if path.endswith(endpoint.suffix)), None)


def stateful_field(body: Mapping[str, Any]) -> str | None:
    """The field that ties the call to state at the provider, if one does.

    `background`, `store`, `previous_response_id`, `conversation` and Anthropic's `container` count when they
    hold anything but null or false. An absent `store` is taken as not asked for.
    """
    return next((name for name in _STATEFUL if body.get(name) not in (None, False)), None)
