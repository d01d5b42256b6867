"""When a response is complete and may be stored, by protocol; and the token usage that it reports.

A plain body is judged whole. A stream is judged event by event and is complete when its terminal event has
passed: `data: [DONE]`, `response.completed`, `message_stop`. Finish reasons are an allow-list: what is not
known to be a full answer is not stored.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, Protocol

import msgspec

from llmcache_fast._usage import Usage
from llmcache_fast.integrations.wire.endpoints import Endpoint
from llmcache_fast.integrations.wire.sse import SseEvent

FINISH_REASONS = frozenset({"stop", "tool_calls", "function_call", "end_turn", "tool_use", "stop_sequence"})
"""The reasons after which an answer is whole; `completed` of the responses API is checked apart."""


class Verdict(NamedTuple):
    """Whether a complete response may be stored."""

    refused: str | None
    """Why not, as a metric's label; None when it may."""
    usage: Usage | None = None
    model: str | None = None


class StreamJudge(Protocol):
    """Watches the events of one stream."""

    def event(self, event: SseEvent) -> bool:
        """Take one event; True when it was the terminal one."""
        ...

    @property
    def failed(self) -> bool:
        """Whether the stream has brought an error."""
        ...

    def verdict(self) -> Verdict:
        """The judgement so far: without a terminal event as the last one taken, `interrupted`."""
        ...


def judge_body(endpoint: Endpoint, data: bytes, reasons: Collection[str]) -> Verdict:
    """Judge the body of a call that does not stream."""
    try:
        body = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Verdict("malformed")
    if not isinstance(body, dict):
        return Verdict("malformed")
    if body.get("error") is not None:
        return Verdict("error")
    try:
        match endpoint.name:
            case "responses":
                return _responses(body)
            case "messages":
                refused = _reason(body.get("stop_reason"), reasons) or (
                    None if any(_block_says_something(block) for block in body["content"]) else "empty"
                )
                return Verdict(refused, anthropic_usage(body.get("usage")), _model(body))
            case "embeddings":
                refused = None if body.get("data") else "empty"
                return Verdict(refused, openai_usage(body.get("usage")), _model(body))
            case _:
                refused = _choices(body["choices"], reasons)
                return Verdict(refused, openai_usage(body.get("usage")), _model(body))
    except (KeyError, TypeError, AttributeError, ValueError):
        return Verdict("malformed")


def stream_judge(endpoint: Endpoint, request: Mapping[str, Any], reasons: Collection[str]) -> StreamJudge:
    """The judge of a stream that answers this request."""
    match endpoint.name:
        case "responses":
            return _ResponsesJudge()
        case "messages":
            return _MessagesJudge(reasons)
        case _:
            wanted = request.get("n")
            return _ChatJudge(reasons, wanted if isinstance(wanted, int) else 1)


def openai_usage(usage: Any) -> Usage | None:
    """Usage of the chat, completions, embeddings and responses shapes; None when there is none."""
    if not isinstance(usage, Mapping):
        return None
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    if not isinstance(details, Mapping):
        details = {}
    return Usage(
        input_tokens=_count(usage.get("prompt_tokens", usage.get("input_tokens"))),
        output_tokens=_count(usage.get("completion_tokens", usage.get("output_tokens"))),
        cached_input_tokens=_count(details.get("cached_tokens")),
        cache_write_tokens=_count(details.get("cache_write_tokens")),
    )


def anthropic_usage(usage: Any) -> Usage | None:
    """Usage of the messages shape, where the parts of the input are counted apart, or None."""
    if not isinstance(usage, Mapping):
        return None
    read = _count(usage.get("cache_read_input_tokens"))
    written = _count(usage.get("cache_creation_input_tokens"))
    return Usage(
        input_tokens=_count(usage.get("input_tokens")) + read + written,
        output_tokens=_count(usage.get("output_tokens")),
        cached_input_tokens=read,
        cache_write_tokens=written,
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def _model(body: Mapping[str, Any]) -> str | None:
    model = body.get("model")
    return model if isinstance(model, str) else None


def _reason(reason: Any, reasons: Collection[str]) -> str | None:
    if reason == "refusal":
        return "refusal"
    return None if isinstance(reason, str) and reason in reasons else "finish_reason"


def _choices(choices: Any, reasons: Collection[str]) -> str | None:
    if not choices:
        return "empty"
    for choice in choices:
        if refused := _reason(choice.get("finish_reason"), reasons):
            return refused
        message = choice.get("message")
        if message is None:
            if not choice.get("text"):
                return "empty"
        elif message.get("refusal"):
            return "refusal"
        elif not _says_something(message):
            return "empty"
    return None


def _says_something(message: Mapping[str, Any]) -> bool:
    return any(message.get(field) for field in ("content", "tool_calls", "function_call", "audio"))


def _block_says_something(block: Mapping[str, Any]) -> bool:
    """Of a content block of the messages shape: text that is not empty, or a block of another kind."""
    kind = block.get("type")
    return bool(block.get("text")) if kind == "text" else kind not in ("thinking", "redacted_thinking")


def _responses(body: Mapping[str, Any]) -> Verdict:
    usage, model = openai_usage(body.get("usage")), _model(body)
    if body.get("status") != "completed" or body.get("incomplete_details") is not None:
        return Verdict("finish_reason", usage, model)
    output = body["output"]
    for item in output:
        for part in item.get("content") or ():
            if part.get("type") == "refusal":
                return Verdict("refusal", usage, model)
    return Verdict(None if any(map(_item_says_something, output)) else "empty", usage, model)


def _item_says_something(item: Mapping[str, Any]) -> bool:
    """Of an output item of the responses shape: a message with a part that is not an empty text, or an item
    of another kind. Reasoning alone is no answer."""
    if item.get("type") != "message":
        return item.get("type") != "reasoning"
    return any(part.get("type") != "output_text" or part.get("text") for part in item.get("content") or ())


def _decoded(event: SseEvent) -> dict[str, Any] | None:
    try:
        value = msgspec.json.decode(event.data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return value if isinstance(value, dict) else None


class _Judge:
    """What the judges share: the first reason against storing stays, and a terminal event ends it."""

    def __init__(self) -> None:
        self._refused: str | None = None
        self._usage: Usage | None = None
        self._model: str | None = None
        self._at_end = False

    def event(self, event: SseEvent) -> bool:
        try:
            self._at_end = self._take(event)
        except (KeyError, TypeError, AttributeError, ValueError):
            self._refuse("malformed")
            return False
        return self._at_end

    @property
    def failed(self) -> bool:
        return self._refused == "error"

    def verdict(self) -> Verdict:
        if not self._at_end:
            self._refuse("interrupted")
        return Verdict(self._refused, self._usage, self._model)

    def _take(self, event: SseEvent) -> bool:
        raise NotImplementedError

    def _refuse(self, reason: str) -> None:
        if self._refused is None:
            self._refused = reason


class _ChatJudge(_Judge):
    """Chat and text completions: `[DONE]` after every choice has ended well and said something."""

    def __init__(self, reasons: Collection[str], wanted: int) -> None:
        super().__init__()
        self._reasons = reasons
        self._wanted = max(1, wanted)
        self._ended: set[int] = set()
        self._spoke: set[int] = set()

    def verdict(self) -> Verdict:
        if self._at_end:
            if len(self._ended) < self._wanted:
                self._refuse("finish_reason")
            if not self._ended <= self._spoke:
                self._refuse("empty")
        return super().verdict()

    def _take(self, event: SseEvent) -> bool:
        # A prefix is what the SDKs look for.
        if event.data.startswith(b"[DONE]"):
            return True
        chunk = _decoded(event)
        if chunk is None:
            self._refuse("malformed")
            return False
        if chunk.get("error") is not None or event.name == b"error":
            self._refuse("error")
        self._model = _model(chunk) or self._model
        self._usage = openai_usage(chunk.get("usage")) or self._usage
        for choice in chunk.get("choices") or ():
            index = choice.get("index", 0)
            delta = choice.get("delta") or {}
            if delta.get("refusal"):
                self._refuse("refusal")
            if choice.get("text") or _says_something(delta):
                self._spoke.add(index)
            if (reason := choice.get("finish_reason")) is not None:
                self._ended.add(index)
                if refused := _reason(reason, self._reasons):
                    self._refuse(refused)
        return False


class _ResponsesJudge(_Judge):
    """Responses: the terminal event carries the whole response, which is judged as a plain body."""

    def _take(self, event: SseEvent) -> bool:
        # An extra [DONE] of a gateway comes after the terminal event; before it, it ends nothing.
        value = _decoded(event)
        if value is None:
            self._refuse("malformed")
            return False
        match value.get("type"):
            case "response.completed":
                refused, self._usage, self._model = _responses(value["response"])
                if refused:
                    self._refuse(refused)
                return True
            case "response.incomplete":
                self._refuse("finish_reason")
                return True
            case "response.failed" | "error":
                self._refuse("error")
                return True
            case _:
                if value.get("error") is not None:
                    self._refuse("error")
                return False


class _MessagesJudge(_Judge):
    """Messages: usage is spread over `message_start` and `message_delta`; `message_stop` ends it."""

    def __init__(self, reasons: Collection[str]) -> None:
        super().__init__()
        self._reasons = reasons
        self._stop_reason: Any = None
        self._counts: dict[str, Any] = {}
        self._spoke = False

    def verdict(self) -> Verdict:
        if self._at_end:
            if refused := _reason(self._stop_reason, self._reasons):
                self._refuse(refused)
            if not self._spoke:
                self._refuse("empty")
        self._usage = anthropic_usage(self._counts) if self._counts else None
        return super().verdict()

    def _take(self, event: SseEvent) -> bool:
        value = _decoded(event)
        if value is None:
            self._refuse("malformed")
            return False
        match value.get("type"):
            case "message_start":
                message = value["message"]
                self._model = _model(message)
                self._merge(message.get("usage"))
            case "content_block_start":
                self._spoke = self._spoke or _block_says_something(value.get("content_block") or {})
            case "content_block_delta":
                self._spoke = self._spoke or bool((value.get("delta") or {}).get("text"))
            case "message_delta":
                self._stop_reason = value["delta"].get("stop_reason") or self._stop_reason
                self._merge(value.get("usage"))
            case "message_stop":
                return True
            case "error":
                self._refuse("error")
        return False

    def _merge(self, usage: Any) -> None:
        # The counts of message_delta are cumulative and replace those of message_start; null says nothing.
        if isinstance(usage, Mapping):
            self._counts |= {name: value for name, value in usage.items() if value is not None}
