"""What the demo upstream answers: text, tool calls and token counts that depend on the request alone."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

_WORDS = [
    "amber",
    "basin",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "harbor",
    "island",
    "juniper",
    "kettle",
    "lantern",
    "meadow",
    "north",
    "orchard",
    "pebble",
    "quartz",
    "river",
    "slate",
    "timber",
    "umber",
    "valley",
    "willow",
    "yarrow",
    "zephyr",
    "anchor",
    "beacon",
    "copper",
    "drift",
    "echo",
]

_WIRE_ONLY = frozenset({"stream", "stream_options"})


class ToolCall(NamedTuple):
    """A call of one of the tools that the request offered."""

    id: str
    name: str
    arguments: str
    """JSON text."""


class Answer(NamedTuple):
    """One answer, before it takes the shape of a protocol."""

    seed: str
    text: str
    tool_calls: tuple[ToolCall, ...]
    input_tokens: int
    output_tokens: int

    def pieces(self) -> list[str]:
        """The text as a stream delivers it: one word a piece, blanks kept."""
        words = self.text.split(" ")
        return [word if n == 0 else f" {word}" for n, word in enumerate(words)] if self.text else []


def seed_of(body: Mapping[str, Any]) -> str:
    """Sixteen hex digits of the request's digest; streaming or not makes no difference."""
    kept = {key: value for key, value in body.items() if key not in _WIRE_ONLY}
    return hashlib.blake2b(msgspec.json.encode(kept, order="deterministic"), digest_size=8).hexdigest()


def count_tokens(text: str) -> int:
    """A stand-in for a tokenizer: four characters to a token, at least one."""
    return max(1, (len(text) + 3) // 4)


def answer(
    body: Mapping[str, Any],
    prompt: str,
    tools: Sequence[tuple[str, Mapping[str, Any]]],
    *,
    words: int | None,
    empty: bool,
) -> Answer:
    """The answer to a request with this body.

    `tools` are the names and parameter schemas to call; none means an answer in text.
    """
    seed = seed_of(body)
    rng = random.Random(seed)  # noqa: S311 - reproducible on purpose
    calls: tuple[ToolCall, ...] = ()
    text = ""
    if tools and not empty:
        calls = tuple(
            ToolCall(f"call_{seed[:8]}_{n}", name, _arguments(schema, rng))
            for n, (name, schema) in enumerate(tools[:2])
        )
    elif not empty:
        count = words if words is not None else rng.randint(12, 40)
        text = " ".join(rng.choice(_WORDS) for _ in range(count)).capitalize() + "."
    output = text + "".join(call.name + call.arguments for call in calls)
    return Answer(seed, text, calls, count_tokens(prompt), count_tokens(output) if output else 0)


def _arguments(schema: Mapping[str, Any], rng: random.Random) -> str:
    properties = schema.get("properties")
    values: dict[str, Any] = {}
    if isinstance(properties, Mapping):
        for name, kind in properties.items():
            values[name] = _value(kind if isinstance(kind, Mapping) else {}, rng)
    return msgspec.json.encode(values).decode()


def _value(schema: Mapping[str, Any], rng: random.Random) -> Any:
    if isinstance(choices := schema.get("enum"), list) and choices:
        return rng.choice(choices)
    match schema.get("type"):
        case "integer":
            return rng.randint(0, 100)
        case "number":
            return rng.randint(0, 100) / 2
        case "boolean":
            return rng.random() < 0.5
        case "array":
            return []
        case "object":
            return {}
        case _:
            return rng.choice(_WORDS)


def text_of(content: Any) -> str:
    """All text in a message's content, whatever its shape."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return " ".join(text_of(part) for part in content)
    if isinstance(content, Mapping):
        return " ".join(text_of(value) for key, value in content.items() if key not in {"type", "id"})
    return "" if content is None else str(content)
