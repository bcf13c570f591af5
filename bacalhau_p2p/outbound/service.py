"""An HTTP service that the node's operator chose, with the credentials for it.

The token is sent in a header and appears nowhere else: no message, log line or error contains it, even
when the service repeats it in an answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any
from urllib.parse import urlsplit

import httpx
import trio

from bacalhau_p2p.errors import SettingsError
from bacalhau_p2p.outbound.addresses import tls_context
from bacalhau_p2p.outbound.bodies import Body, empty_body
from bacalhau_p2p.outbound.http import (
    RETRY_PAUSES,
    RETRY_STATUSES,
    TEMPORARY_ERRORS,
    describe_error,
    describe_status,
    pause_before_retry,
)

MAX_ANSWER = 1024 * 1024
"""Bytes of an answer that is read whole."""
_MAX_REASON = 200


class ServiceError(Exception):
    """A request to a service failed. The text names the service and the cause; `status` is that of its
    answer, 0 without one."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Service:
    """Requests below one base URL. Temporary failures are retried; redirects are not followed, so that
    the token is sent nowhere else."""

    def __init__(
        self, endpoint: str, token: str = "", *, pauses: Sequence[float] = RETRY_PAUSES, idle: float = 30.0
    ) -> None:
        """`token` is sent as a bearer token, or as it is when it names its scheme (`Basic ...`).

        `idle`: seconds without a byte. Raises SettingsError unless `endpoint` is an http or https URL.
        """
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError(f"{endpoint!r} is not an http or https URL")
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

        Raises ServiceError for an answer that is not 2xx, not JSON or too long, and when none came.
        """
        data = await self._request(method, path, query, value, body, content_type)
        return self._json(data) if data.strip() else None

    async def lines(self, path: str, *, query: Mapping[str, str], body: Body, content_type: str) -> list[Any]:
        """As `call` with POST, for an answer with one JSON value on each line."""
        data = await self._request("POST", path, query, None, body, content_type)
        return [self._json(line) for line in data.splitlines() if line.strip()]

    def _json(self, data: bytes) -> Any:
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise ServiceError(f"{self.host}: invalid JSON in the answer") from None

    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        value: object,
        body: Body | None,
        content_type: str,
    ) -> bytes:
        """The body of a 2xx answer, after as many attempts as it takes. Raises ServiceError."""
        headers = {"Content-Type": content_type} if content_type else {}
        attempt = 0
        async with self._client() as client:
            while True:
                async with aclosing((body or empty_body)()) as content:
                    request = client.build_request(
                        method,
                        self._base + path,
                        params=query,
                        json=value,
                        content=content if body else None,
                        headers=headers,
                    )
                    response, problem = await self._attempt(client, request)
                if response is not None and response.is_success:
                    return response.content
                temporary = response is None or response.status_code in RETRY_STATUSES
                pause = pause_before_retry(attempt, response, self._pauses) if temporary else None
                if pause is None:
                    raise ServiceError(problem, response.status_code if response is not None else 0)
                attempt += 1
                await trio.sleep(pause)

    async def _attempt(
        self, client: httpx.AsyncClient, request: httpx.Request
    ) -> tuple[httpx.Response | None, str]:
        """The whole answer, if there was one, and what is wrong with it."""
        try:
            response = await client.send(request, stream=True)
            try:
                async with aclosing(self._chunks(response, MAX_ANSWER)) as chunks:
                    data = b"".join([chunk async for chunk in chunks])
            finally:
                await response.aclose()
        except httpx.LocalProtocolError:  # its text may contain the token
            raise ServiceError(f"{self.host}: invalid request") from None
        except TEMPORARY_ERRORS as error:
            return None, f"{self.host}: {describe_error(error, self._idle)}"
        whole = httpx.Response(response.status_code, headers=response.headers, content=data)
        return whole, f"{self.host}: {describe_status(whole)}{self._reason(data)}"

    async def _chunks(self, response: httpx.Response, limit: int) -> AsyncGenerator[bytes, None]:
        """The body of an answer as it comes. Raises ServiceError above `limit` bytes."""
        received = 0
        async for chunk in response.aiter_raw():
            received += len(chunk)
            if received > limit:
                raise ServiceError(f"{self.host}: answer larger than {limit} bytes")
            yield chunk

    async def stream(
        self, method: str, path: str, *, query: Mapping[str, str], headers: Mapping[str, str], limit: int
    ) -> AsyncGenerator[bytes, None]:
        """The body of an answer as it comes, without retries. Raises ServiceError, also after some pieces."""
        async with self._client() as client:
            try:
                async with client.stream(
                    method, self._base + path, params=query, headers=dict(headers)
                ) as response:
                    if not response.is_success:
                        raise ServiceError(f"{self.host}: {describe_status(response)}", response.status_code)
                    async with aclosing(self._chunks(response, limit)) as chunks:
                        async for chunk in chunks:
                            yield chunk
            except httpx.LocalProtocolError:
                raise ServiceError(f"{self.host}: invalid request") from None
            except TEMPORARY_ERRORS as error:
                raise ServiceError(f"{self.host}: {describe_error(error, self._idle)}") from error

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            headers=self._headers,
            timeout=httpx.Timeout(self._idle),
            verify=tls_context(),
            follow_redirects=False,
        )

    def _reason(self, data: bytes) -> str:
        """The reason that a service gives for a refusal, in parentheses; empty when it gives none."""
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            return ""
        reason = value.get("error", value) if isinstance(value, dict) else None
        if isinstance(reason, dict):
            reason = reason.get("details") or reason.get("reason") or reason.get("message")
        if not isinstance(reason, str) or not reason.strip():
            return ""
        return f" ({self.sanitized(reason)})"

    def sanitized(self, text: str) -> str:
        """A service's text as one short line, without our token."""
        if self._token:
            for secret in (self._token, self._token.rpartition(" ")[2]):
                text = text.replace(secret, "***")
        return re.sub(r"[^\x20-\x7e]+", " ", text).strip()[:_MAX_REASON]


def json_at(value: Any, *keys: str) -> Any:
    """The value below these keys of nested JSON objects, None where there is none."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
