"""A small local server that speaks the OpenAI and Anthropic protocols, for the demo and for tests.

What belongs here: the wire shapes of the providers, deterministic answers, and the faults a client must
survive. What does not: anything of the cache; the server does not know that there is one.

The text of an answer depends on the request alone, so two runs can be compared; ids carry the serial
number of the request, so a replayed answer can be told from a second call.

**Controls.** A fault or a behaviour is asked for by name: a `model` that starts with `demo:`
(`demo:cut`), or the request header `x-demo` beside any model; several are separated by commas.

| control | effect |
|---|---|
| `error-S` | status S with the provider's error body; 429 and 503 carry `retry-after` |
| `flaky-S-N` | status S for the first N requests with the same body, then normal |
| `cut` | the connection is closed in the middle of the answer, between two events |
| `cut-event` | the same, in the middle of an event |
| `cut-end` | the same, after the last piece of text but before the terminal event |
| `stream-error` | status 200, then an error event in the stream |
| `length` `filter` `refusal` `empty` | the answer is truncated, filtered, refused, has no content |
| `no-tools` | answers in text although tools were offered |
| `crlf` | SSE lines end in CRLF, with comments between the events |
| `gzip` | the body is compressed, with `content-encoding: gzip` |
| `slow-MS` | first byte after MS milliseconds |
| `drip-MS` | MS milliseconds between chunks |
| `words-N` | the answer has N words |
"""

from __future__ import annotations

from llmcache_fast.cli.upstream.app import UpstreamOptions, create_app
from llmcache_fast.cli.upstream.server import DemoUpstream

__all__ = ["DemoUpstream", "UpstreamOptions", "create_app"]
