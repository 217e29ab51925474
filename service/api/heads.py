"""Heads of HTTP requests: bounded in bytes and time, and refused in the shape of every other refusal."""

import asyncio
from collections import Counter
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.api.edge import request_id_of
from service.api.problems import MEDIA_TYPE, dump_problem, problem_of
from service.errors import HeadTooLarge, HeadTooSlow, MalformedHttp, ServiceError
from service.settings import Limits

_ROUTE: Final = ("none", "none")


class BoundedHeads(HttpToolsProtocol):
    """uvicorn's protocol, which itself waits for the end of a head for ever and takes one of any size."""

    limits: ClassVar[Limits]
    counts: ClassVar["Counter[tuple[str, str, int]]"]
    _alarm: asyncio.TimerHandle | None = None
    _bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first head is awaited."""
        super().connection_made(transport)
        self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is awaited any more."""
        self._end()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Part of a head, or of a body, which is bounded where it is read."""
        if self._alarm is not None:
            self._bytes += len(data)
        super().data_received(data)
        if self._alarm is not None and self._bytes > self.limits.head_bytes:
            self._refuse(_too_large(self._bytes, self.limits.head_bytes))

    def on_message_begin(self) -> None:
        """The first byte of a head came."""
        super().on_message_begin()
        if self._alarm is None:
            self._begin()

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._end()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP."""
        self._refuse(
            MalformedHttp("This is not an HTTP/1.1 request.", hint="Check its first line, its length and its headers.")
        )

    def _begin(self) -> None:
        self._bytes = 0
        self._alarm = self.loop.call_later(self.limits.head_s, self._late)

    def _end(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _late(self) -> None:
        self._refuse(
            HeadTooSlow(
                f"The head of the request did not arrive within {self.limits.head_s:g} s.",
                hint="Send it at once.",
                limit=self.limits.head_s,
                unit="s",
            )
        )

    def _refuse(self, error: ServiceError) -> None:
        self._end()
        if self.transport.is_closing():
            return
        request_id = request_id_of(b"")
        body = dump_problem(problem_of(error, request_id)[0])
        lines = [f"content-type: {MEDIA_TYPE}", f"content-length: {len(body)}", f"x-request-id: {request_id}"]
        head = "\r\n".join([*lines, "connection: close", "", ""]).encode()
        self.transport.write(STATUS_LINE[error.status] + head + body)
        self.transport.close()
        self.counts[(*_ROUTE, error.status)] += 1


def bounded_heads(limits: Limits, counts: "Counter[tuple[str, str, int]]") -> type[BoundedHeads]:
    """The protocol for uvicorn, for one gateway.

    Args:
        limits: bytes and seconds of a head.
        counts: answers by route, method and status.
    """
    members: dict[str, Any] = {"limits": limits, "counts": counts}
    return type("BoundedHeads", (BoundedHeads,), members)


def _too_large(got: int, limit: int) -> HeadTooLarge:
    return HeadTooLarge(
        f"The head of the request has at least {got:,} bytes; the limit is {limit:,}.",
        hint="Send fewer or shorter headers.",
        limit=limit,
        got=got,
        unit="bytes",
    )
