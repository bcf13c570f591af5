from __future__ import annotations

import ssl

import httpx
import pytest

from bacalhau_p2p.outbound.http import (
    describe_error,
    describe_status,
    pause_before_retry,
    redacted,
    retry_after,
)


def response(status: int = 429, **headers: str) -> httpx.Response:
    return httpx.Response(status, headers={name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        ("", 0.0),
        ("soon", 0.0),
        ("-5", 0.0),
        ("Thu, 01 Jan 1970 00:02:00 GMT", 20.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(text, seconds):
    assert retry_after(response(Retry_After=text), now=100.0) == seconds


def test_a_longer_pause_that_the_server_asks_for_is_observed():
    assert pause_before_retry(0, response(Retry_After="3"), (1.0, 2.0)) == 3.0
    assert pause_before_retry(1, response(Retry_After="1"), (1.0, 2.0)) == 2.0
    assert pause_before_retry(1, None, (1.0, 2.0)) == 2.0


def test_there_is_no_retry_after_the_last_pause_or_a_very_long_one():
    assert pause_before_retry(2, None, (1.0, 2.0)) is None
    assert pause_before_retry(0, response(Retry_After="3600"), (1.0, 2.0)) is None


def test_a_status_is_described_by_its_standard_phrase():
    assert describe_status(response(401)) == "401 Unauthorized"
    assert describe_status(response(418)) == "418 I'm a teapot"
    assert describe_status(response(599)) == "599"
    assert describe_status(response(429, Retry_After="5")) == "429 Too Many Requests (retry after 5 s)"
    named = httpx.Response(404, extensions={"reason_phrase": b"<script>"})
    assert describe_status(named) == "404 Not Found"


def test_urls_are_shown_without_possible_secrets():
    assert redacted("https://user:password@host/a?signature=x#y") == "https://host/a"


def wrapped(cause: Exception) -> httpx.ConnectError:
    error = httpx.ConnectError("failed")
    error.__cause__ = cause
    return error


BAD_CERTIFICATE = ssl.SSLCertVerificationError("of the server")
BAD_CERTIFICATE.verify_message = "certificate has expired"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (httpx.ConnectTimeout("x"), "no connection within 5 s"),
        (httpx.ReadTimeout("x"), "no data for 5 s"),
        (httpx.ConnectError("unknown host: x"), "connection failed: unknown host: x"),
        (wrapped(BAD_CERTIFICATE), "invalid certificate: certificate has expired"),
        (httpx.RemoteProtocolError("x"), "connection closed early, or not an HTTP server"),
        (httpx.ReadError("x"), "connection lost"),
        (httpx.UnsupportedProtocol("x"), "not an HTTP URL"),
        (httpx.LocalProtocolError("Illegal header value b'secret'"), "request failed"),
    ],
)
def test_an_error_is_described_by_its_cause(error, text):
    assert describe_error(error, idle=5.0) == text
