"""Speaking with HTTP servers: when to try again, and what to say when it was in vain."""

from __future__ import annotations

import ssl
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime

import httpx

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between attempts at a request, unless the server asks for another time."""
LONGEST_PAUSE = 120.0
"""Seconds; a server that asks to be left alone for longer has refused."""

RETRY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
PASSING = (httpx.TransportError,)
"""What may be otherwise a moment later."""


def retry_after(response: httpx.Response, now: float | None = None) -> float:
    """Seconds that a server asks to wait (`Retry-After`, a number or a date), 0 when it does not say."""
    text = response.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        when = parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return max(0.0, when - (time.time() if now is None else now))


def pause_before(attempt: int, response: httpx.Response | None, pauses: Sequence[float]) -> float | None:
    """Seconds to wait after the failed attempt of this number (from 0), None to give up."""
    if attempt >= len(pauses):
        return None
    asked = 0.0 if response is None else retry_after(response)
    return None if asked > LONGEST_PAUSE else max(pauses[attempt], asked)


def answered(response: httpx.Response) -> str:
    """What a server's refusal is, in words."""
    words = {
        401: "401: the credentials were not accepted",
        403: "403: access is denied",
        404: "404: there is no such thing",
        410: "410: it is gone",
        413: "413: it is too large",
        429: "429: too many requests",
    }
    text = words.get(response.status_code, f"{response.status_code} {response.reason_phrase}".strip())
    asked = retry_after(response)
    return f"{text}, and asks to come back in {asked:.0f} s" if asked else text


def in_words(error: Exception, idle: float) -> str:
    """What went wrong on the way to a server; no header and no address of ours is in it."""
    if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
        return f"it did not accept a connection within {idle:g} s"
    if isinstance(error, httpx.TimeoutException):
        return f"nothing came for {idle:g} s"
    if isinstance(error, httpx.ConnectError):
        certificate = error.__cause__ is not None and _certificate_fault(error)
        return certificate or f"no connection can be had: {error}"
    if isinstance(error, httpx.RemoteProtocolError):
        return "the connection broke off, or does not speak HTTP"
    if isinstance(error, httpx.NetworkError):
        return "the connection was lost"
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return "it is not a URL that can be fetched"
    return "the request could not be made"


def _certificate_fault(error: BaseException) -> str | None:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not valid: {cause.verify_message}"
        cause = cause.__cause__ or cause.__context__
    return None


def shown(url: httpx.URL | str) -> str:
    """A URL for messages: without query, which may hold a signature, fragment and password."""
    url = httpx.URL(url)
    return str(url.copy_with(query=None, fragment=None, username=None, password=None))
