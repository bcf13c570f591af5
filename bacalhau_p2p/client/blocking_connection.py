"""Sends calls to a node and receives the responses, blocking, with `http.client`: for the command line,
which has to start before httpx would be imported."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from bacalhau_p2p.client.calls import (
    IDLE_LIMIT,
    RESPONSE_TIMEOUT,
    Call,
    cannot_connect,
    connection_broken,
    no_response,
    read_logs,
)
from bacalhau_p2p.client.environment import api_url
from bacalhau_p2p.client.lines import LineReader
from bacalhau_p2p.client.retry import Patience
from bacalhau_p2p.errors import ApiError, BacalhauError, NodeUnavailable
from bacalhau_p2p.model.logs import KnownOutput, LogPiece

if TYPE_CHECKING:
    from bacalhau_p2p.client.download import Download
    from bacalhau_p2p.ipfs.files.export import Exported

_PIECE = 1024 * 1024

Progress = Callable[[int, int | None], None]
"""Called with the bytes that have arrived, and the bytes that are expected if this is known."""

_T = TypeVar("_T")


class BlockingConnection:
    """One kept-alive connection to a node, for a `with` block; opened by the first call.

    Every method raises NodeUnavailable without a response, and the error in the response otherwise.
    """

    def __init__(self, host: str, port: int, *, token: str = "") -> None:
        self.url = api_url(host, port)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._last_response = 0.0
        try:
            self._http = http.client.HTTPConnection(host, port, timeout=RESPONSE_TIMEOUT)
        except http.client.InvalidURL:
            raise ApiError(f"invalid host {host!r}") from None

    def another(self) -> Self:
        """Another connection to the same node, for another thread."""
        made = type(self)(self._http.host, self._http.port)
        made._headers = self._headers
        return made

    def abort(self) -> None:
        """End what another thread does with this connection: there it raises NodeUnavailable."""
        if (connected := self._http.sock) is not None:
            with suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def call_patiently(
        self, call: Call[_T], patience: Patience, *, sleep: Callable[[float], None] = time.sleep
    ) -> _T:
        """Like `call`, but try again while the node cannot be reached: for what waits for a job."""
        while True:
            try:
                result = self.call(call)
            except NodeUnavailable as error:
                sleep(patience.pause(error, now=time.monotonic()))
            else:
                patience.succeeded()
                return result

    def output(
        self,
        job_id: str,
        patience: Patience,
        *,
        tail: int | None = None,
        execution: str = "",
        sleep: Callable[[float], None] = time.sleep,
    ) -> Iterator[LogPiece]:
        """What a job writes, until it has ended. While the node cannot be reached it tries again, and goes on
        where it was."""
        known = KnownOutput()
        while True:
            call = read_logs(job_id, follow=True, tail=None if known else tail, execution=execution)
            try:
                for piece in self.lines(call):
                    patience.succeeded()
                    if fresh := known.fresh(piece):
                        yield fresh
            except NodeUnavailable as error:
                sleep(patience.pause(error, now=time.monotonic()))
            else:
                return

    def call(self, call: Call[_T]) -> _T:
        """Send a request and return its result."""
        for attempt in call.attempts():
            with attempt, self._response(call) as response:
                return call.result(response.status, response.read(), url=self.url)
        raise AssertionError("the last attempt returns or raises")

    def lines(self, call: Call[_T]) -> Iterator[_T]:
        """Send a request whose response is lines of JSON, and read one by one without empty ones."""
        with self._response(call) as response:
            if response.status != http.client.OK:
                raise call.error(response.status, response.read())
            reader = LineReader()
            while data := response.read1():  # `readline` takes a broken connection for the end
                for line in reader.feed(data):
                    if line.strip():
                        yield call.result(response.status, line, url=self.url)
            if response.length:
                raise http.client.IncompleteRead(b"", response.length)

    def download(self, download: Download, *, progress: Progress = lambda done, total: None) -> Exported:
        """Fetch content and put it in place; the result says what was written. Raises ContentError."""
        call = download.call
        with self._response(call) as response:
            if response.status != http.client.OK:
                raise call.error(response.status, response.read())
            size = response.headers.get("X-Content-Size", "")
            total = int(size) if size.isascii() and size.isdigit() and len(size) < 19 else None
            if total is not None:
                download.expect(total)
            for piece in _pieces(response):
                download.feed(piece)
                progress(download.received, total)
        return download.finish()

    @contextmanager
    def _response(self, call: Call[_T]) -> Iterator[http.client.HTTPResponse]:
        """The response to a request, to be read within the block."""
        try:
            self._connect()
            self._http.sock.settimeout(call.timeout)
            self._send(call)
            yield self._http.getresponse()
            self._last_response = time.monotonic()
        except BacalhauError:
            self._http.close()
            raise
        except TimeoutError:
            self._http.close()
            raise no_response(self.url, call.timeout) from None
        except (ConnectionError, http.client.HTTPException):
            self._http.close()
            raise connection_broken(self.url) from None

    def _connect(self) -> None:
        if self._http.sock is not None:
            if time.monotonic() - self._last_response < IDLE_LIMIT:
                return
            self._http.close()
        try:
            self._http.connect()
        except OSError as error:
            self._http.close()
            raise cannot_connect(self.url, error) from None

    def _send(self, call: Call[_T]) -> None:
        headers = {**self._headers, **call.headers}
        if isinstance(call.body, bytes):
            self._http.request(call.method, call.target, body=call.body or None, headers=headers)
            return
        headers["Transfer-Encoding"] = "chunked"
        # A node that refuses the body before all of it is sent may say why in its response.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._http.request(call.method, call.target, body=call.body, headers=headers, encode_chunked=True)


def _pieces(response: http.client.HTTPResponse) -> Iterator[memoryview | bytes]:
    """The body of a response. All pieces share their memory: use each before you ask for the next.

    Yields what there is also before an error: it may say why.
    """
    memory = memoryview(bytearray(_PIECE))
    try:
        while size := response.readinto(memory):
            yield memory[:size]
    except http.client.IncompleteRead as broken:
        yield broken.partial
        raise
