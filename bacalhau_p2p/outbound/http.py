"""What every HTTP request needs: when to retry, and what to say about a failure."""

from __future__ import annotations

import ssl
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime

import httpx

from bacalhau_p2p.outbound.urls import InvalidWebURL, parse_web_url

RETRY_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between attempts at a request, unless the server asks for a longer pause."""
MAX_PAUSE = 120.0
"""Seconds; a server that asks for a longer pause is not asked again."""

MAX_RETRY_AFTER = 64
"""Characters of a `Retry-After` that are read."""

RETRY_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses of temporary failures."""
TEMPORARY_ERRORS = (httpx.TransportError,)
"""Errors that may not occur again a moment later."""


def retry_after(response: httpx.Response, now: float | None = None) -> float:
    """Seconds that a server asks to wait (`Retry-After`, a number or a date), 0 when it does not say."""
    text = response.headers.get("retry-after", "")[:MAX_RETRY_AFTER].strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        when = parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return 0.0
    return max(0.0, when - (time.time() if now is None else now))


def pause_before_retry(
    attempt: int, response: httpx.Response | None, pauses: Sequence[float]
) -> float | None:
    """Seconds to wait after failed attempt number `attempt` (from 0), None to give up."""
    if attempt >= len(pauses):
        return None
    wanted = 0.0 if response is None else retry_after(response)
    return None if wanted > MAX_PAUSE else max(pauses[attempt], wanted)


def describe_status(response: httpx.Response) -> str:
    """`404 Not Found (retry after 30 s)`. The phrase is the standard one, whatever the server sent."""
    text = f"{response.status_code} {httpx.codes.get_reason_phrase(response.status_code)}".strip()
    seconds = retry_after(response)
    return f"{text} (retry after {seconds:.0f} s)" if seconds else text


def describe_error(error: Exception, idle: float) -> str:
    """Why a request got no answer. Contains no header and no URL, which may hold secrets."""
    if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
        return f"no connection within {idle:g} s"
    if isinstance(error, httpx.TimeoutException):
        return f"no data for {idle:g} s"
    if isinstance(error, httpx.ConnectError):
        problem = _certificate_problem(error)
        return f"invalid certificate: {problem}" if problem else f"connection failed: {error}"
    if isinstance(error, httpx.RemoteProtocolError):
        return "connection closed early, or not an HTTP server"
    if isinstance(error, httpx.NetworkError):
        return "connection lost"
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol | InvalidWebURL):
        return "not an HTTP URL"
    return "request failed"


def _certificate_problem(error: BaseException) -> str | None:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message
        cause = cause.__cause__ or cause.__context__
    return None


def redacted(url: httpx.URL | str) -> str:
    """A URL for messages: without password, fragment, and query, which may hold a signature. Raises
    InvalidWebURL for a text that is none."""
    url = parse_web_url(url) if isinstance(url, str) else url
    return str(url.copy_with(query=None, fragment=None, username=None, password=None))
