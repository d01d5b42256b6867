"""The demo upstream as a Starlette application: routes, faults before the answer, counters."""

from __future__ import annotations

import base64
import random
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import anyio
import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from llmcache_fast.cli.upstream import answers, chat, messages, responses
from llmcache_fast.cli.upstream.wire import Controls, Event, json_response, parse_controls, stream_response


class UpstreamOptions(NamedTuple):
    """How the server behaves for requests that do not say otherwise."""

    latency_ms: float = 0.0
    """Time to the first byte."""
    chunk_ms: float = 0.0
    """Time between two chunks of a stream."""
    error_rate: float = 0.0
    """Share of requests answered with status 500, chosen by a seeded generator."""
    rate_limit: float = 0.0
    """Requests a second before 429; 0 is no limit."""
    api_key: str | None = None
    """The only key that is accepted; None accepts all but `invalid`."""
    seed: int = 0


class _Protocol(NamedTuple):
    prompt_of: Callable[[Mapping[str, Any]], str]
    tools_of: Callable[[Mapping[str, Any]], list[tuple[str, Mapping[str, Any]]]]
    plain: Callable[[answers.Answer, Mapping[str, Any], Controls, int], dict[str, Any]]
    stream: Callable[[answers.Answer, Mapping[str, Any], Controls, int], Iterator[Event]]
    anthropic: bool = False


_PROTOCOLS = {
    "/v1/chat/completions": _Protocol(chat.prompt_of, chat.tools_of, chat.plain, chat.stream),
    "/v1/responses": _Protocol(responses.prompt_of, responses.tools_of, responses.plain, responses.stream),
    "/v1/messages": _Protocol(
        messages.prompt_of, messages.tools_of, messages.plain, messages.stream, anthropic=True
    ),
}

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class _State:
    """Counters and the generators behind rates; one per application."""

    def __init__(self, options: UpstreamOptions) -> None:
        self.options = options
        self.reset()

    def reset(self) -> None:
        self.serial = 0
        self.streams = 0
        self.in_flight = 0
        self.max_in_flight = 0
        self.input_tokens = 0
        self.output_tokens = 0
        self.by_path: Counter[str] = Counter()
        self.by_status: Counter[str] = Counter()
        self.last_headers: list[str] = []
        self.flaky: Counter[str] = Counter()
        self.rng = random.Random(self.options.seed)  # noqa: S311 - reproducible on purpose
        self.allowance = max(1.0, self.options.rate_limit)
        self.refilled = time.monotonic()

    def allowed(self) -> bool:
        if self.options.rate_limit <= 0:
            return True
        now = time.monotonic()
        rate = self.options.rate_limit
        self.allowance = min(max(1.0, rate), self.allowance + (now - self.refilled) * rate)
        self.refilled = now
        if self.allowance < 1:
            return False
        self.allowance -= 1
        return True


def create_app(options: UpstreamOptions | None = None) -> Starlette:
    """The application; its counters are read at `GET /stats` and cleared by `POST /reset`."""
    state = _State(options or UpstreamOptions())

    async def serve(request: Request) -> Response:
        state.serial += 1
        state.by_path[request.url.path] += 1
        # Names alone: the values may hold a credential.
        state.last_headers = sorted(request.headers)
        state.in_flight += 1
        state.max_in_flight = max(state.max_in_flight, state.in_flight)
        try:
            response = await _answer(request, state, state.serial)
        finally:
            state.in_flight -= 1
        state.by_status[str(response.status_code)] += 1
        return response

    async def stats(request: Request) -> Response:
        value = {
            "requests": state.serial,
            "by_path": dict(state.by_path),
            "by_status": dict(state.by_status),
            "streams": state.streams,
            "max_in_flight": state.max_in_flight,
            "input_tokens": state.input_tokens,
            "output_tokens": state.output_tokens,
            "last_headers": state.last_headers,
        }
        return Response(msgspec.json.encode(value), media_type="application/json")

    async def reset(request: Request) -> Response:
        state.reset()
        return Response(b"{}", media_type="application/json")

    async def models(request: Request) -> Response:
        state.serial += 1
        state.by_path[request.url.path] += 1
        data = [{"id": "gpt-4o-mini", "object": "model", "created": chat.CREATED, "owned_by": "demo"}]
        return Response(msgspec.json.encode({"object": "list", "data": data}), media_type="application/json")

    paths = [*_PROTOCOLS, "/v1/embeddings"]
    routes = [Route(path, serve, methods=["POST"]) for path in paths]
    routes += [
        Route("/v1/models", models, methods=["GET"]),
        Route("/stats", stats, methods=["GET"]),
        Route("/reset", reset, methods=["POST"]),
    ]
    return Starlette(routes=routes)


async def _answer(request: Request, state: _State, serial: int) -> Response:
    options = state.options
    path = request.url.path
    protocol = _PROTOCOLS.get(path)
    anthropic = protocol is not None and protocol.anthropic
    name = "request-id" if anthropic else "x-request-id"
    headers = {
        name: f"req_{serial}",
        "x-ratelimit-remaining-requests": str(1_000_000 - serial),
        "set-cookie": f"__cf_bm=demo-{serial}; path=/",
    }

    def failed(status: int, message: str) -> Response:
        kind = _ERROR_TYPES.get(status, "api_error" if anthropic else "server_error")
        error: dict[str, Any] = {"type": kind, "message": message}
        extra = {"retry-after": "0"} if status in (429, 503) else {}
        if anthropic:
            body: dict[str, Any] = {"type": "error", "error": error, "request_id": f"req_{serial}"}
        else:
            body = {"error": {**error, "param": None, "code": None}}
        return json_response(body, Controls(), {**headers, **extra}, status)

    key = request.headers.get("x-api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")
    if key == "invalid" or (options.api_key is not None and key != options.api_key):
        return failed(401, "Incorrect API key provided.")
    if not state.allowed():
        return failed(429, "Rate limit reached.")
    try:
        body = msgspec.json.decode(await request.body())
        if not isinstance(body, dict) or not isinstance(body.get("model"), str):
            raise ValueError("'model' must be a string")
        controls = parse_controls(
            body["model"],
            request.headers.get("x-demo"),
            first_ms=options.latency_ms,
            chunk_ms=options.chunk_ms,
        )
        prompt = protocol.prompt_of(body) if protocol else answers.text_of(body.get("input"))
    except (ValueError, KeyError) as problem:
        return failed(400, str(problem))
    await anyio.sleep(controls.first_ms / 1000)
    if controls.error is not None:
        return failed(controls.error, f"The demo upstream was asked for status {controls.error}.")
    seed = answers.seed_of(body)
    if controls.flaky is not None and state.flaky[seed] < controls.flaky[1]:
        state.flaky[seed] += 1
        return failed(controls.flaky[0], "The demo upstream fails a few times before it answers.")
    if options.error_rate > 0 and state.rng.random() < options.error_rate:
        return failed(500, "The demo upstream fails now and then.")
    if protocol is None:
        return _embeddings(body, prompt, controls, headers, state)
    try:
        tools = [] if "no-tools" in controls or "refusal" in controls else protocol.tools_of(body)
    except (AttributeError, TypeError, IndexError) as problem:
        return failed(400, f"malformed tools or messages: {type(problem).__name__}")
    answer = answers.answer(body, prompt, tools, words=controls.words, empty="empty" in controls)
    state.input_tokens += answer.input_tokens
    state.output_tokens += answer.output_tokens
    if not body.get("stream"):
        return json_response(protocol.plain(answer, body, controls, serial), controls, headers)
    state.streams += 1
    events = protocol.stream(answer, body, controls, serial)
    return stream_response(events, _fault(path), controls, headers)


def _fault(path: str) -> Event:
    """The event that breaks off a stream."""
    error: dict[str, Any] = {"type": "overloaded_error", "message": "Overloaded"}
    match path:
        case "/v1/messages":
            return Event("error", msgspec.json.encode({"type": "error", "error": error}))
        case "/v1/responses":
            fields = {"type": "error", "code": "server_error", "message": "Overloaded", "param": None}
            return Event("error", msgspec.json.encode({**fields, "sequence_number": 3}))
        case _:
            return Event(None, msgspec.json.encode({"error": {**error, "code": None, "param": None}}))


def _embeddings(
    body: Mapping[str, Any], prompt: str, controls: Controls, headers: Mapping[str, str], state: _State
) -> Response:
    inputs = body.get("input")
    texts = inputs if isinstance(inputs, list) else [inputs]
    tokens = answers.count_tokens(prompt)
    state.input_tokens += tokens
    data: list[dict[str, Any]] = []
    for n, text in enumerate(texts):
        rng = random.Random(str(text))  # noqa: S311 - reproducible on purpose
        vector = [rng.uniform(-1, 1) for _ in range(int(body.get("dimensions") or 8))]
        value: Any = vector
        if body.get("encoding_format") == "base64":
            value = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        data.append({"object": "embedding", "index": n, "embedding": value})
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    whole = {"object": "list", "data": data, "model": body["model"], "usage": usage}
    return json_response(whole, controls, headers)
