"""The connections of HTTP: how many there may be, how long they may be silent, what they may send.

uvicorn hands a request to the application when its head is there. What comes before that, and what
happens to an answer that nobody reads, is limited here.
"""

import asyncio
import re
import resource
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from kerasseg.serving.server.limits import Limits

_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_AMBIGUOUS = re.compile(rb"\r?\n[ \t]|(?<!\r)\n|\r(?!\n)")
"""A header that goes on in the next line, and the ends of lines that not everybody takes for one.
RFC 9112 lets a server refuse both, and a proxy in front may read them differently."""
_MOST_FILES = 16384
_OTHER_FILES = 64
"""Files that are open besides connections."""


def most_connections(limits: Limits) -> int:
    """Return how many HTTP connections may be open, after letting the process open more files.

    Half of the files that the process may have open are left to gRPC.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(1, min(limits.connections, (most - _OTHER_FILES) // 2))


class _StrictConnection(h11.Connection):
    """h11's reading of requests, without what two readers may understand in two ways."""

    def next_event(self) -> Any:
        """Return the next event; raise `h11.RemoteProtocolError` for an ambiguous head."""
        if self.their_state is h11.IDLE:
            received, _ = self.trailing_data
            end = _END_OF_HEAD.search(received)
            if end and _AMBIGUOUS.search(received[: end.end()]):
                raise h11.RemoteProtocolError("folded header or bare line feed")
        event = super().next_event()
        if isinstance(event, h11.Request):
            names = [name for name, _ in event.headers]
            if b"transfer-encoding" in names and b"content-length" in names:
                raise h11.RemoteProtocolError("Content-Length and Transfer-Encoding")
        return event


class LimitedProtocol(H11Protocol):
    """A connection that is closed if its client keeps the server waiting for too long.

    `limited` makes a class of it that has its limits.
    """

    limits: Limits
    most: int

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.conn = _StrictConnection(h11.SERVER)
        self._since = self._heard = self._read = self.loop.time()
        self._unsent = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Close the connection whose client has been silent for longest if there are too many."""
        super().connection_made(transport)
        others = [each for each in self.connections if isinstance(each, LimitedProtocol)]
        if len(others) > self.most:
            silent = [each for each in others if each.silent_since() is not None]
            oldest = min(silent, key=lambda each: each.silent_since() or 0.0, default=self)
            oldest.transport.abort()
            self.connections.discard(oldest)
        self._check()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop looking after the connection."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Note when the client was heard, and read what it sent."""
        self._heard = self.loop.time()
        super().data_received(data)

    def on_response_complete(self) -> None:
        """Wait for the next request from now on."""
        self._since = self.loop.time()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be read; hang up if an answer is on its way already."""
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:
            self.transport.abort()

    def silent_since(self) -> float | None:
        """Return since when the client keeps the server waiting; None if it is the server's turn.

        A head must come whole within the time, and a body go on: the application sees to that.
        """
        if self.cycle is None or self.cycle.response_complete:
            return self._since
        return self._heard if self.cycle.more_body else None

    def _check(self) -> None:
        """Close the connection if a head, or reading an answer, takes too long; else look again."""
        now, unsent = self.loop.time(), self.transport.get_write_buffer_size()
        if unsent != self._unsent:  # the client reads its answer
            self._read, self._unsent = now, unsent
        since = now
        if unsent:
            since = self._read
        elif self.cycle is None or self.cycle.response_complete:
            since = max(self._since, self._read)
        if now - since >= self.limits.silent_seconds:
            self.transport.abort()
            return
        self._timer = self.loop.call_later(self.limits.silent_seconds / 4, self._check)


def limited(limits: Limits) -> type[LimitedProtocol]:
    """Return the class of connections with these limits, as uvicorn's option `http`."""

    class Limited(LimitedProtocol):
        pass

    Limited.limits, Limited.most = limits, most_connections(limits)
    return Limited
