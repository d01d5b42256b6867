"""The calls that the drop-in tests make: bodies for each endpoint, plain and streamed."""

from __future__ import annotations

from typing import Any

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
MESSAGES = [{"role": "user", "content": "What is the weather like?"}]

PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}


def body(
    endpoint: str, *, model: str = "gpt-4o-mini", stream: bool = False, tools: bool = False
) -> dict[str, Any]:
    """A request body of an endpoint."""
    value: dict[str, Any] = {"model": model}
    match endpoint:
        case "chat":
            value["messages"] = MESSAGES
            if stream:
                value["stream_options"] = {"include_usage": True}
            if tools:
                value["tools"] = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]
        case "responses":
            value["input"] = "What is the weather like?"
            if tools:
                value["tools"] = [{"type": "function", "name": "weather", "parameters": SCHEMA}]
        case _:
            value |= {"messages": MESSAGES, "max_tokens": 100}
            if tools:
                value["tools"] = [{"name": "weather", "input_schema": SCHEMA}]
    if stream:
        value["stream"] = True
    return value
