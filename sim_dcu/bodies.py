"""Bodies of requests, of a bounded size. Knows nothing of what they mean."""

from starlette.requests import Request

from sim_dcu.parameters import ApiError

# All but arrays and whole configurations is a number or a text.
LARGEST_SHORT_BODY = 2**20


class TooLargeError(ApiError):
    """A body that nothing the DCU takes would need."""

    status = 413


async def whole_body(request: Request, most: int = LARGEST_SHORT_BODY) -> bytes:
    """Return the body of a request.

    Parameters
    ----------
    request : Request
        Whose body is meant.
    most : int
        How long it may be, in bytes.

    Raises
    ------
    TooLargeError
        Where it is longer, or says that it is.
    """
    pieces = bytearray()
    announced = request.headers.get("content-length", "0")
    if int(announced) > most:
        raise TooLargeError(f"body of {announced} bytes, more than {most}")
    async for piece in request.stream():
        pieces += piece
        if len(pieces) > most:
            raise TooLargeError(f"body of more than {most} bytes")
    return bytes(pieces)
