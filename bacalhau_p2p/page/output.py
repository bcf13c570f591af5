"""Sends what a job writes to browsers while it writes it: as events for the page, and as plain text."""

from __future__ import annotations

import codecs
from collections.abc import AsyncGenerator
from contextlib import aclosing

from markupsafe import Markup, escape

from bacalhau_p2p.errors import BacalhauError
from bacalhau_p2p.model.logs import LogPiece, LogStream
from bacalhau_p2p.page.live import event_of
from bacalhau_p2p.runtime.text import printable

MAX_SHOWN = 1024 * 1024
"""Characters of output that a page shows: a browser keeps all of it."""
END = b"event: end\ndata: \n\n"
"""Tells the browser not to connect again."""
_KEEP_ALIVE = b": nothing new\n\n"

Pieces = AsyncGenerator[LogPiece | None, None]


async def output_events(pieces: Pieces) -> AsyncGenerator[bytes, None]:
    """Server-sent events, each with HTML to append: the text of a piece, marked as stdout or stderr."""
    decoders = {stream: codecs.getincrementaldecoder("utf-8")("replace") for stream in LogStream}
    left = MAX_SHOWN
    async with aclosing(pieces):
        try:
            async for piece in pieces:
                if piece is None:
                    yield _KEEP_ALIVE
                    continue
                text = decoders[piece.stream].decode(piece.data)[:left]
                left -= len(text)
                yield event_of(_marked(text, piece.stream.name.lower()))
                if left <= 0:
                    yield event_of(_marked("\nThis is all that the page shows.\n", "soft"))
                    break
        except BacalhauError as error:
            yield event_of(_marked(f"\n{error}\n", "fault"))
    yield END


async def output_text(first: LogPiece | None, pieces: Pieces) -> AsyncGenerator[bytes, None]:
    """Both streams as they came. `first` was taken from `pieces`."""
    async with aclosing(pieces):
        if first is not None:
            yield first.data
        try:
            async for piece in pieces:
                if piece is not None:
                    yield piece.data
        except BacalhauError as error:
            yield f"\n{error}\n".encode("utf-8", "replace")


def _marked(text: str, kind: str) -> str:
    return Markup('<span class="{}">{}</span>').format(kind, escape(printable(text, keep_lines=True)))
