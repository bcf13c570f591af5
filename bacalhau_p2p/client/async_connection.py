"""Sends calls to a node and receives the responses, on trio or asyncio, with httpx."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import Self, TypeVar

import anyio.from_thread
import anyio.to_thread
import httpx

from bacalhau_p2p.client.calls import (
    IDLE_LIMIT,
    RESPONSE_TIMEOUT,
    Call,
    cannot_connect,
    connection_broken,
    no_response,
)
from bacalhau_p2p.client.download import Download
from bacalhau_p2p.client.event_stream import EventStreamReader
from bacalhau_p2p.client.file_stream import FileStream
from bacalhau_p2p.client.lines import LineReader
from bacalhau_p2p.errors import ApiError

MAX_CONNECTIONS = 56
"""Connections that a client has at most; further requests wait for one. A node lets a remote address have a
few more (`MAX_CONNECTIONS_PER_ADDRESS`)."""
CONNECTION_TIMEOUT = 120.0
"""Seconds that a request waits for a connection. Waits for jobs take turns; streams keep theirs."""
_KEPT_CONNECTIONS = 8
_PIECE = 1024 * 1024

_T = TypeVar("_T")


class AsyncConnection:
    """The connections to one node, for an `async with` block.

    Every method raises NodeUnavailable without a response, and the error in the response otherwise.
    """

    def __init__(self, url: str, *, token: str = "") -> None:
        self.url = url
        # Nodes are reached directly: a proxy from the environment would also be used for loopback.
        self._http = httpx.AsyncClient(
            base_url=url,
            trust_env=False,
            headers={"Authorization": f"Bearer {token}"} if token else None,
            limits=httpx.Limits(
                max_connections=MAX_CONNECTIONS,
                max_keepalive_connections=_KEPT_CONNECTIONS,
                keepalive_expiry=IDLE_LIMIT,
            ),
        )

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def call(self, call: Call[_T]) -> _T:
        """Send a request and return its result."""
        for attempt in call.attempts():
            with attempt:
                response = await self._response(call)
                return call.result(response.status_code, response.content, url=self.url)
        raise AssertionError("the last attempt returns or raises")

    async def download(self, download: Download) -> None:
        """Fetch content and put it in place. Raises ContentError."""
        async with self._stream(download.call) as response:
            async for piece in _gathered(response.aiter_bytes()):
                await anyio.to_thread.run_sync(download.feed, piece)
        await anyio.to_thread.run_sync(download.finish, anyio.from_thread.check_cancelled)

    async def read(self, stream: FileStream) -> AsyncGenerator[bytes, None]:
        """The bytes of a file, in pieces as they arrive. Raises ContentError."""
        async with self._stream(stream.call) as response:
            async for received in _gathered(response.aiter_bytes()):
                ready = stream.feed(received)
                while (piece := await anyio.to_thread.run_sync(next, ready, None)) is not None:
                    yield piece
        stream.finish()

    async def lines(self, call: Call[_T]) -> AsyncGenerator[_T | None, None]:
        """Send a request whose response is lines of JSON, and read one after the other; None for an empty
        one."""
        async with self._stream(call) as response:
            async for line in _lines(response):
                yield call.result(response.status_code, line, url=self.url) if line else None

    async def events(self, call: Call[_T]) -> AsyncGenerator[_T | None, None]:
        """Send a request whose response is server-sent events, and read one after the other; None when there
        are no more, which a stream that just ends does not say."""
        async with self._stream(call, also=httpx.codes.NO_CONTENT) as response:
            if response.status_code == httpx.codes.NO_CONTENT:
                yield None
                return
            reader = EventStreamReader(lambda data: call.result(httpx.codes.OK, data, url=self.url))
            async for line in _lines(response):
                for event in reader.feed(line):
                    yield event

    @asynccontextmanager
    async def _stream(self, call: Call[_T], *, also: int = httpx.codes.OK) -> AsyncIterator[httpx.Response]:
        """The response to a request, while it arrives."""
        with self._translated_errors(call):
            async with self._http.stream(
                call.method, call.target, headers=call.headers, timeout=_timeout(call)
            ) as response:
                if response.status_code not in (httpx.codes.OK, also):
                    raise call.error(response.status_code, await response.aread())
                yield response

    async def _response(self, call: Call[_T]) -> httpx.Response:
        body = call.body if isinstance(call.body, bytes) else _made_in_threads(iter(call.body))
        with self._translated_errors(call):
            return await self._http.request(
                call.method, call.target, content=body, headers=call.headers, timeout=_timeout(call)
            )

    @contextmanager
    def _translated_errors(self, call: Call[_T]) -> Iterator[None]:
        """Turns the errors of httpx into ours."""
        if self._http.is_closed:
            raise ApiError("this client is closed")
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise cannot_connect(self.url, error) from None
        except httpx.PoolTimeout:
            raise ApiError(
                f"all {MAX_CONNECTIONS} connections of this client are in use: close some of its streams of"
                " events, logs or files, or use another client"
            ) from None
        except httpx.TimeoutException:
            raise no_response(self.url, call.timeout) from None
        except (httpx.UnsupportedProtocol, httpx.InvalidURL):
            raise ApiError(f"invalid URL {self.url!r}; expected one such as http://127.0.0.1:1234") from None
        except httpx.RequestError as error:
            raise connection_broken(self.url) from error


def _timeout(call: Call[_T]) -> httpx.Timeout:
    return httpx.Timeout(RESPONSE_TIMEOUT, read=call.timeout, pool=CONNECTION_TIMEOUT)


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    reader = LineReader()
    async for piece in response.aiter_bytes():
        for line in reader.feed(piece):
            yield line


async def _gathered(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Joins small pieces to larger ones. Yields what there is also before an error: it may say why."""
    gathered = bytearray()
    try:
        async for piece in pieces:
            gathered += piece
            if len(gathered) >= _PIECE:
                yield bytes(gathered)
                gathered.clear()
    except httpx.RequestError:
        yield bytes(gathered)
        raise
    yield bytes(gathered)


async def _made_in_threads(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (piece := await anyio.to_thread.run_sync(next, pieces, None)) is not None:
        yield piece
