"""Sends calls to a node and receives the responses, on trio, with httpx."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TypeVar

import httpx
import trio

from bacalhau_p2p.client.calls import (
    RESPONSE_TIMEOUT,
    Call,
    cannot_connect,
    connection_broken,
    no_response,
)
from bacalhau_p2p.client.download import Download
from bacalhau_p2p.errors import ApiError

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
        )

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def call(self, call: Call[_T]) -> _T:
        """Send a request and return its result."""
        for attempt in call.attempts():
            with attempt:
                response = await self._response(call)
                return call.result(response.status_code, response.content, url=self.url)
        raise AssertionError("the last attempt returns or raises")

    async def download(self, download: Download) -> None:
        """Fetch content and put it in place. Raises ContentError."""
        call = download.call
        with self._translated_errors(call):
            async with self._http.stream(
                call.method, call.target, headers=call.headers, timeout=_timeout(call)
            ) as response:
                if response.status_code != httpx.codes.OK:
                    raise call.error(response.status_code, await response.aread())
                async for piece in _gathered(response.aiter_bytes()):
                    await trio.to_thread.run_sync(download.feed, piece)
        await trio.to_thread.run_sync(download.finish, trio.from_thread.check_cancelled)

    async def lines(self, call: Call[_T]) -> AsyncGenerator[_T | None, None]:
        """Send a request whose response is lines of JSON, and read one after the other; None for an empty
        one."""
        with self._translated_errors(call):
            async with self._http.stream(
                call.method, call.target, headers=call.headers, timeout=_timeout(call)
            ) as response:
                if response.status_code != httpx.codes.OK:
                    raise call.error(response.status_code, await response.aread())
                async for line in response.aiter_lines():
                    yield call.result(response.status_code, line.encode(), url=self.url) if line else None

    async def _response(self, call: Call[_T]) -> httpx.Response:
        body = call.body if isinstance(call.body, bytes) else _made_in_threads(iter(call.body))
        with self._translated_errors(call):
            return await self._http.request(
                call.method, call.target, content=body, headers=call.headers, timeout=_timeout(call)
            )

    @contextmanager
    def _translated_errors(self, call: Call[_T]) -> Iterator[None]:
        """Turns the errors of httpx into ours."""
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise cannot_connect(self.url) from None
        except httpx.TimeoutException:
            raise no_response(self.url, call.timeout) from None
        except (httpx.UnsupportedProtocol, httpx.InvalidURL):
            raise ApiError(f"invalid URL {self.url!r}; expected one such as http://127.0.0.1:1234") from None
        except httpx.RequestError as error:
            raise connection_broken(self.url) from error


def _timeout(call: Call[_T]) -> httpx.Timeout:
    return httpx.Timeout(RESPONSE_TIMEOUT, read=call.timeout)


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
    while (piece := await trio.to_thread.run_sync(next, pieces, None)) is not None:
        yield piece
