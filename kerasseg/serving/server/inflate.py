"""Gzip that inflates to what was announced, and to nothing more."""

import zlib

from isal import igzip_lib, isal_zlib

from kerasseg.serving.server.refusal import Reason, Refusal

_ERRORS: tuple = (zlib.error, igzip_lib.error, EOFError, ValueError)


def inflate(data: bytes, most: int, what: str, *, exactly: bool) -> bytes:
    """What one gzip member holds, `most` bytes or, unless `exactly`, less.

    Never allocates more than `most` bytes and a little, however small `data` is.

    what: the name of `data` in messages

    Raises `Refusal` for what is no gzip, cut short, or inflates to another size.
    """
    member = isal_zlib.decompressobj(wbits=isal_zlib.MAX_WBITS + 16)
    try:
        result = member.decompress(data, most + 1)
    except _ERRORS as error:
        raise Refusal(
            Reason.BAD_INPUT, f"{what} cannot be inflated as gzip: {error or 'it is damaged'}."
        ) from None
    if len(result) > most:
        claim = "its shape and dtype claim" if exactly else "is taken"
        reason = Reason.BAD_INPUT if exactly else Reason.TOO_LARGE
        raise Refusal(reason, f"{what} inflates to more than the {most} bytes that {claim}.")
    if not member.eof:
        raise Refusal(Reason.BAD_INPUT, f"{what} ends before its gzip stream does: it is cut.")
    if member.unused_data:
        raise Refusal(Reason.BAD_INPUT, f"{what} has bytes behind its gzip stream.")
    if exactly and len(result) != most:
        raise Refusal(
            Reason.BAD_INPUT,
            f"{what} inflates to {len(result)} bytes, but its shape and dtype claim {most}.",
        )
    return result
