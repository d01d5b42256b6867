"""An incremental scanner of server-sent events, indifferent to how the bytes were cut into chunks.

Source: WHATWG HTML, "Server-sent events", parsing an event stream. `id` and `retry` fields are skipped:
nothing here reconnects.
"""

from __future__ import annotations

from typing import NamedTuple


class SseEvent(NamedTuple):
    """One dispatched event. `name` is empty when the stream gave none; data lines are joined by LF."""

    name: bytes
    data: bytes


class SseScanner:
    """Turns chunks into events; CR, LF and CRLF end a line, also when a CRLF is cut in two.

    Holds at most `limit` bytes of an unfinished event; beyond it `overflowed` is set and nothing more is
    returned. Linear in the bytes fed, whatever the chunk sizes.
    """

    def __init__(self, limit: int = 32 * 1024 * 1024) -> None:
        self.overflowed = False
        self._limit = limit
        self._held = 0
        self._tail: list[bytes] = []
        self._after_cr = False
        self._first_line = True
        self._name = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """The events that this chunk completes, in order."""
        events: list[SseEvent] = []
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk[:1] == b"\n":
                chunk = chunk[1:]
        if self.overflowed or not chunk:
            return events
        # bytes.splitlines cuts at CR, LF and CRLF only, which is exactly the standard's rule.
        for line in chunk.splitlines(keepends=True):
            body = line.rstrip(b"\r\n")
            self._tail.append(body)
            self._held += len(body)
            if self._held > self._limit:
                self.overflowed = True
                self._tail.clear()
                self._data.clear()
                return events
            if len(body) < len(line):
                self._end_line(events)
        self._after_cr = chunk.endswith(b"\r")
        return events

    def finish(self) -> list[SseEvent]:
        """The event that a clean end of the stream leaves without its closing blank line, if any."""
        events: list[SseEvent] = []
        if not self.overflowed:
            if self._tail:
                self._end_line(events)
            self._dispatch(events)
        return events

    def _end_line(self, events: list[SseEvent]) -> None:
        line = self._tail[0] if len(self._tail) == 1 else b"".join(self._tail)
        self._tail.clear()
        if self._first_line:
            self._first_line = False
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            self._dispatch(events)
            return
        field, colon, value = line.partition(b":")
        if colon and value[:1] == b" ":
            value = value[1:]
        if field == b"data":
            self._data.append(value)
        else:
            # Comments and fields without a use here are not held, so a stream of keep-alives stays at zero.
            self._held -= len(line)
            if field == b"event":
                self._name = value

    def _dispatch(self, events: list[SseEvent]) -> None:
        # An event without a data line is dropped, its name with it: the standard says so.
        if self._data:
            events.append(SseEvent(self._name, b"\n".join(self._data)))
            self._data.clear()
        self._name = b""
        self._held = 0
