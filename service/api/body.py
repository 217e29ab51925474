"""The one reader of HTTP bodies: bounded in bytes, pieces and time, whatever the content coding."""

import asyncio
import zlib
from collections.abc import AsyncIterator
from typing import Final, Self

from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from service.errors import (
    BodyTooLarge,
    BodyTooSlow,
    BrokenCompression,
    ServiceError,
    TooManyChunks,
    UnsupportedEncoding,
)
from service.settings import Limits

CODINGS: Final[dict[str, int | None]] = {"identity": None, "gzip": 31, "deflate": 15}
CLOSE: Final = {"Connection": "close"}
_INFLATED_AT_ONCE: Final = 1 << 20
_DRAINED_BYTES: Final = 64 << 20
_DRAINED_S: Final = 2.0


async def read_body(request: Request, limit: int, limits: Limits) -> bytes | bytearray:
    """The whole body, decompressed; memory never passes the limit by more than one piece.

    Args:
        request: a body that nobody has read from.
        limit: bytes that the body may have, on the wire and decompressed.
        limits: pieces and time it may take.

    Raises:
        BodyTooLarge, BodyTooSlow, TooManyChunks, UnsupportedEncoding, BrokenCompression
        ClientDisconnect: the caller left in the middle of it.
    """
    pieces = _Pieces(request, limits)
    try:
        window = _window(request)
        _refuse_claim(request, limit)
        if window is None:
            return await _plain(pieces, limit)
        return await _inflated(pieces, window, limit)
    except ServiceError as error:
        if not isinstance(error, BodyTooSlow):
            await pieces.drain()
        raise


async def pieces_of(request: Request, limits: Limits) -> AsyncIterator[bytes]:
    """A body without a content coding as it arrives, bounded in pieces and time.

    Raises:
        BodyTooSlow, TooManyChunks, UnsupportedEncoding
        ClientDisconnect: the caller left in the middle of it.
    """
    if _window(request) is not None:
        raise UnsupportedEncoding("A part of an upload is not compressed.", hint="Leave Content-Encoding out.")
    async for piece in _Pieces(request, limits):
        yield piece


async def _plain(pieces: AsyncIterator[bytes], limit: int) -> bytes | bytearray:
    body: bytes | bytearray = b""
    async for piece in pieces:
        if len(body) + len(piece) > limit:
            raise _too_large(limit, len(body) + len(piece))
        if not body:
            body = piece
        elif isinstance(body, bytes):
            body = bytearray(body) + piece
        else:
            body += piece
    return body


async def _inflated(pieces: AsyncIterator[bytes], window: int, limit: int) -> bytearray:
    inflate, body = zlib.decompressobj(window), bytearray()
    async for piece in pieces:
        while piece:
            room = min(_INFLATED_AT_ONCE, limit - len(body) + 1)
            try:
                body += await asyncio.to_thread(inflate.decompress, piece, room)
            except zlib.error:
                raise _broken("is not what Content-Encoding says") from None
            if len(body) > limit:
                raise _too_large(limit, len(body))
            if inflate.unused_data:
                raise _broken("has data behind its end; send one member")
            piece = inflate.unconsumed_tail
    if not inflate.eof:
        raise _broken("ends too early")
    return body


def _window(request: Request) -> int | None:
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in CODINGS:  # also "gzip, gzip"
        raise UnsupportedEncoding(
            f"Content-Encoding '{coding[:40]}' is not read here.",
            hint="Send gzip, deflate or no coding, and only one.",
            headers={"Accept-Encoding": "gzip, deflate", **CLOSE},
            expected=[name for name in CODINGS if name != "identity"],
        )
    return CODINGS[coding]


def _refuse_claim(request: Request, limit: int) -> None:
    claim = request.headers.get("content-length", "")
    if claim.isascii() and claim.isdigit() and int(claim[:19]) > limit:
        raise _too_large(limit, int(claim[:19]))


def _too_large(limit: int, got: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"The body has at least {got:,} bytes; the limit is {limit:,}.",
        hint="Send fewer structures at once, or large ones in binary (application/octet-stream).",
        headers=CLOSE,
        limit=limit,
        got=got,
        unit="bytes",
    )


def _too_many_chunks(limit: int) -> TooManyChunks:
    return TooManyChunks(
        f"The body came in more than {limit:,} pieces.",
        hint="Send larger chunks.",
        headers=CLOSE,
        limit=limit,
        unit="chunks",
    )


def _broken(why: str) -> BrokenCompression:
    return BrokenCompression(
        f"The compressed body {why}.", hint="Compress the whole body once, as one gzip or zlib stream.", headers=CLOSE
    )


class _Pieces:
    """The body as it arrives. No time-out outlives one piece, so none can strike while nobody waits for the body."""

    def __init__(self, request: Request, limits: Limits) -> None:
        self._request = request
        self._limits = limits
        self._begin = asyncio.get_running_loop().time()
        self._bytes = self._count = 0
        self._more = True

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """The next piece.

        Raises:
            TooManyChunks, BodyTooSlow
            ClientDisconnect: the caller left.
        """
        if not self._more:
            raise StopAsyncIteration
        message = await self._message()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece: bytes = message.get("body", b"")
        self._more = message.get("more_body", False)
        self._bytes += len(piece)
        self._count += 1
        if self._count > self._limits.body_chunks:
            raise _too_many_chunks(self._limits.body_chunks)
        return piece

    async def drain(self) -> None:
        """Let the caller finish sending, within bounds, so that it reads the refusal instead of a reset connection."""
        left = _DRAINED_BYTES
        try:
            async with asyncio.timeout(_DRAINED_S):
                while self._more and left > 0:
                    message = await self._request.receive()
                    self._more = message.get("more_body", False)
                    left -= len(message.get("body", b"")) + 1
        except TimeoutError:
            return

    async def _message(self) -> Message:
        limits = self._limits
        allowed_s = limits.body_grace_s + self._bytes / limits.body_least_bytes_per_s
        try:
            async with asyncio.timeout_at(self._begin + allowed_s):
                return await self._request.receive()
        except TimeoutError:
            raise BodyTooSlow(
                f"The body did not arrive in time: {self._bytes} bytes in {allowed_s:.1f} s.",
                hint=f"Send at least {limits.body_least_bytes_per_s} bytes a second.",
                headers=CLOSE,
                got=self._bytes,
                unit="bytes",
            ) from None
