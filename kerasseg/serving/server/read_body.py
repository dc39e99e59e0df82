"""The body of an HTTP request, under a limit of size and time."""

import asyncio

from fastapi import Request

from kerasseg.serving.server.inflate import inflate
from kerasseg.serving.server.refusal import Reason, Refusal


async def read_body(request: Request, most: int, seconds: float) -> bytes:
    """The whole body, inflated if its Content-Encoding is gzip.

    Raises `Refusal` for more than `most` bytes, announced or sent, and for a sender that takes
    longer than `seconds`.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > most:
        raise _too_large(most, int(announced))
    encoding = request.headers.get("content-encoding", "").lower()
    if encoding not in ("", "identity", "gzip"):
        raise Refusal(Reason.BAD_INPUT, f"Content-Encoding is {encoding}, expected gzip or none.")
    try:
        body = await asyncio.wait_for(_collect(request, most), seconds)
    except asyncio.TimeoutError:  # before Python 3.11 another one than the built-in
        raise Refusal(
            Reason.TOO_LATE, f"The body did not arrive within {seconds:g} seconds."
        ) from None
    if encoding == "gzip":
        return await asyncio.to_thread(inflate, body, most, "The body", exactly=False)
    return body


async def _collect(request: Request, most: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise _too_large(most)
    return bytes(body)


def _too_large(most: int, found: int | None = None) -> Refusal:
    size = "more" if found is None else f"{found} bytes"
    return Refusal(
        Reason.TOO_LARGE, f"The body has {size}; at most {most} bytes are taken in one request."
    )
