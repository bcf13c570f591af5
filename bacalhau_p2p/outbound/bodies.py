"""Bodies of requests, streamed, and made again for each attempt."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

Body = Callable[[], AsyncGenerator[bytes, None]]
"""Makes the body of a request, again for each attempt."""


def as_body(pieces: Callable[[], AsyncIterator[bytes]]) -> Body:
    """A body from any way to make an asynchronous iterator of bytes."""

    async def body() -> AsyncGenerator[bytes, None]:
        async for piece in pieces():
            yield piece

    return body


async def empty_body() -> AsyncGenerator[bytes, None]:
    """A body without content."""
    return
    yield b""


def multipart(name: str, file_name: str, content_type: str, body: Body) -> tuple[Body, str]:
    """A form with one file: the body and its content type."""
    boundary = secrets.token_hex(16)
    head = (
        f"--{boundary}\r\n"
        f'Content-Disposition: form-data; name="{name}"; filename="{file_name}"\r\n'
        f"Content-Type: {content_type}\r\n\r\n"
    )

    async def form() -> AsyncGenerator[bytes, None]:
        yield head.encode()
        async with aclosing(body()) as pieces:
            async for piece in pieces:
                yield piece
        yield f"\r\n--{boundary}--\r\n".encode()

    return form, f"multipart/form-data; boundary={boundary}"
