"""An HTTP service that the node's operator chose, with the credentials for it.

The token goes into a header and nowhere else: no message, log line or error of ours holds it, also
when the service repeats it in an answer.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any
from urllib.parse import urlsplit

import httpx
import trio

from bacalhau_p2p.errors import SettingsError
from bacalhau_p2p.outbound.addresses import trust
from bacalhau_p2p.outbound.http import PASSING, PAUSES, RETRY_STATUS, answered, in_words, pause_before

MAX_ANSWER = 1024 * 1024
"""Bytes of an answer that is read whole."""
_MAX_REASON = 200

Body = Callable[[], AsyncGenerator[bytes, None]]
"""Makes the body of a request, again for each attempt."""


class ServiceFault(Exception):
    """A service did not do what it was asked. The text names it and says why; `status` is that of its
    answer, 0 when there was none."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Service:
    """Requests below one base URL. What may pass is tried again; redirects are not followed, so that
    the token goes nowhere else."""

    def __init__(
        self, endpoint: str, token: str = "", *, pauses: Sequence[float] = PAUSES, idle: float = 30.0
    ) -> None:
        """`token` is sent as a bearer token, or as it is when it names its scheme (`Basic ...`).

        `idle`: seconds without a byte. Raises SettingsError for what is not an http or https URL.
        """
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError(f"{endpoint!r} is not the URL of a service")
        self._base = endpoint.rstrip("/")
        self.host = parts.hostname
        self._token = token
        self._headers = {"User-Agent": "bacalhau_p2p", "Accept-Encoding": "identity"}
        if token:
            self._headers["Authorization"] = token if " " in token else f"Bearer {token}"
        self._pauses = pauses
        self._idle = idle

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        value: object = None,
        body: Body | None = None,
        content_type: str = "",
    ) -> Any:
        """The JSON of the answer, None when it is empty; `value` is sent as JSON, `body` as a stream.

        Raises ServiceFault for an answer that is not 2xx, not JSON or too long, and when none came.
        """
        data = await self._repeat(method, path, query, value, body, content_type)
        try:
            return json.loads(data) if data.strip() else None
        except (ValueError, RecursionError):
            raise ServiceFault(f"{self.host} answered what is not JSON") from None

    async def lines(self, path: str, *, query: Mapping[str, str], body: Body, content_type: str) -> list[Any]:
        """As `call` with POST, for an answer of one JSON value a line."""
        data = await self._repeat("POST", path, query, None, body, content_type)
        try:
            return [json.loads(line) for line in data.splitlines() if line.strip()]
        except (ValueError, RecursionError):
            raise ServiceFault(f"{self.host} answered what is not JSON") from None

    async def _repeat(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        value: object,
        body: Body | None,
        content_type: str,
    ) -> bytes:
        headers = {"Content-Type": content_type} if content_type else {}
        attempt = 0
        async with self._client() as client:
            while True:
                async with aclosing(body() if body else _nothing()) as content:
                    request = client.build_request(
                        method,
                        self._base + path,
                        params=query,
                        json=value,
                        content=content if body else None,
                        headers=headers,
                    )
                    response, cause = await self._attempt(client, request)
                if response is not None and response.is_success:
                    return response.content
                passing = response is None or response.status_code in RETRY_STATUS
                pause = pause_before(attempt, response, self._pauses) if passing else None
                if pause is None:
                    raise ServiceFault(cause, response.status_code if response is not None else 0)
                attempt += 1
                await trio.sleep(pause)

    async def _attempt(
        self, client: httpx.AsyncClient, request: httpx.Request
    ) -> tuple[httpx.Response | None, str]:
        """The answer, if there was one, read whole; and what is wrong with it, in words."""
        try:
            response = await client.send(request, stream=True)
            try:
                async with aclosing(self.chunks(response, MAX_ANSWER)) as chunks:
                    data = b"".join([chunk async for chunk in chunks])
            finally:
                await response.aclose()
        except httpx.LocalProtocolError:  # its text may hold the token
            raise ServiceFault(f"a request to {self.host} cannot be made") from None
        except PASSING as error:
            return None, f"{self.host} did not answer: {in_words(error, self._idle)}"
        whole = httpx.Response(response.status_code, headers=response.headers, content=data)
        return whole, f"{self.host} answered {answered(whole)}{self._reason(data)}"

    async def chunks(self, response: httpx.Response, limit: int) -> AsyncGenerator[bytes, None]:
        """The body of an answer as it comes. Raises ServiceFault above `limit` bytes."""
        used = 0
        async for chunk in response.aiter_raw():
            used += len(chunk)
            if used > limit:
                raise ServiceFault(f"{self.host} answered with more than {limit} bytes")
            yield chunk

    async def stream(
        self, method: str, path: str, *, query: Mapping[str, str], headers: Mapping[str, str], limit: int
    ) -> AsyncGenerator[bytes, None]:
        """The body of an answer as it comes, of one attempt. Raises ServiceFault, also half-way."""
        async with self._client() as client:
            try:
                async with client.stream(
                    method, self._base + path, params=query, headers=dict(headers)
                ) as response:
                    if not response.is_success:
                        raise ServiceFault(f"{self.host} answered {answered(response)}", response.status_code)
                    async with aclosing(self.chunks(response, limit)) as chunks:
                        async for chunk in chunks:
                            yield chunk
            except httpx.LocalProtocolError:
                raise ServiceFault(f"a request to {self.host} cannot be made") from None
            except PASSING as error:
                raise ServiceFault(f"{self.host} failed: {in_words(error, self._idle)}") from error

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            headers=self._headers, timeout=httpx.Timeout(self._idle), verify=trust(), follow_redirects=False
        )

    def _reason(self, data: bytes) -> str:
        """What a service says about its refusal, made harmless; empty when it says nothing."""
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            return ""
        said = value.get("error", value) if isinstance(value, dict) else None
        if isinstance(said, dict):
            said = said.get("details") or said.get("reason") or said.get("message")
        if not isinstance(said, str) or not said.strip():
            return ""
        return f" ({self.clean(said)})"

    def clean(self, text: str) -> str:
        """Words of a service, for a message: one short line, without our token."""
        if self._token:
            for secret in (self._token, self._token.rpartition(" ")[2]):
                text = text.replace(secret, "***")
        return re.sub(r"[^\x20-\x7e]+", " ", text).strip()[:_MAX_REASON]


async def _nothing() -> AsyncGenerator[bytes, None]:
    return
    yield b""


def multipart(name: str, file_name: str, content_type: str, body: Body) -> tuple[Body, str]:
    """A form with one file, streamed: the body and its content type."""
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


def at(value: Any, *keys: str) -> Any:
    """What lies below these keys of nested JSON maps, None where there is nothing."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def as_body(pieces: Callable[[], AsyncIterator[bytes]]) -> Body:
    """A body from any way to make an asynchronous iterator of bytes."""

    async def body() -> AsyncGenerator[bytes, None]:
        async for piece in pieces():
            yield piece

    return body
