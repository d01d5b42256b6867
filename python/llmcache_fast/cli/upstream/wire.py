"""How the demo upstream puts an answer on the wire: SSE framing, faults, pauses and error bodies."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import anyio
import msgspec
from starlette.responses import Response, StreamingResponse


@dataclass(frozen=True)
class Controls:
    """The behaviours asked for by a request; see the package's table."""

    names: frozenset[str] = frozenset()
    error: int | None = None
    flaky: tuple[int, int] | None = None
    first_ms: float = 0.0
    chunk_ms: float = 0.0
    words: int | None = None

    def __contains__(self, name: object) -> bool:
        return name in self.names


class Event(NamedTuple):
    """One server-sent event; `name` is absent in the chat protocol."""

    name: str | None
    data: bytes


class StreamCutError(Exception):
    """Raised inside a body to make the server drop the connection."""


def parse_controls(model: Any, header: str | None, *, first_ms: float, chunk_ms: float) -> Controls:
    """The controls in a model name (`demo:a,b`) and in the header `x-demo`; unknown ones raise ValueError."""
    words = [word.strip() for word in (header or "").split(",")]
    if isinstance(model, str) and model.startswith("demo:"):
        words += model.removeprefix("demo:").split(",")
    controls = Controls(frozenset(word for word in words if word), first_ms=first_ms, chunk_ms=chunk_ms)
    for word in controls.names:
        kind, _, rest = word.partition("-")
        match kind:
            case "error":
                controls = replace(controls, error=int(rest))
            case "flaky":
                status, _, times = rest.partition("-")
                controls = replace(controls, flaky=(int(status), int(times)))
            case "slow":
                controls = replace(controls, first_ms=float(rest))
            case "drip":
                controls = replace(controls, chunk_ms=float(rest))
            case "words":
                controls = replace(controls, words=int(rest))
            case _ if word not in _PLAIN:
                raise ValueError(f"unknown control {word!r}")
    return controls


_PLAIN = frozenset(
    {
        "stream-error",
        "refusal",
        "ok",
        "cut",
        "crlf",
        "cut-event",
        "empty",
        "gzip",
        "cut-end",
        "filter",
        "no-tools",
        "length",
    }
)


def frame(event: Event, *, crlf: bool) -> bytes:
    """An event as bytes."""
    lines = ([b"event: " + event.name.encode()] if event.name else []) + [b"data: " + event.data, b"", b""]
    if crlf:
        return b": keep-alive\r\n" + b"\r\n".join(lines)
    return b"\n".join(lines)


def stream_response(
    events: Iterable[Event], error: Event, controls: Controls, headers: Mapping[str, str]
) -> Response:
    """An SSE response, with the faults that `controls` asks for."""
    merged = {**headers, "cache-control": "no-cache"}
    body = _body(list(events), error, controls)
    if "gzip" in controls:
        merged["content-encoding"] = "gzip"
        body = _gzipped(body)
    return StreamingResponse(body, media_type="text/event-stream", headers=merged)


async def _body(events: list[Event], error: Event, controls: Controls) -> AsyncIterator[bytes]:
    middle = max(1, len(events) // 2)
    last = len(events) - 1
    for n, event in enumerate(events):
        data = frame(event, crlf="crlf" in controls)
        if n == middle and "cut-event" in controls:
            yield data[: len(data) // 2]
            raise StreamCutError
        if (n == middle and "cut" in controls) or (n == last and "cut-end" in controls):
            raise StreamCutError
        if n == middle and "stream-error" in controls:
            yield frame(error, crlf=False)
            return
        if n:
            await anyio.sleep(controls.chunk_ms / 1000)
        yield data


async def _gzipped(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    packer = zlib.compressobj(wbits=31)
    async for chunk in body:
        yield packer.compress(chunk) + packer.flush(zlib.Z_SYNC_FLUSH)
    yield packer.flush()


def json_response(body: Any, controls: Controls, headers: Mapping[str, str], status: int = 200) -> Response:
    """A plain JSON response; `cut` sends half of it."""
    data = msgspec.json.encode(body)
    merged = dict(headers)
    if "gzip" in controls:
        data = gzip.compress(data)
        merged["content-encoding"] = "gzip"
    if controls.names & {"cut", "cut-event", "cut-end"}:
        merged["content-length"] = str(len(data))
        return StreamingResponse(
            _half(data), status_code=status, media_type="application/json", headers=merged
        )
    return Response(data, status_code=status, media_type="application/json", headers=merged)


async def _half(data: bytes) -> AsyncIterator[bytes]:
    yield data[: len(data) // 2]
    raise StreamCutError
