from __future__ import annotations

import httpx
import pytest

from bacalhau_p2p.outbound.http import answered, pause_before, retry_after, shown


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


def test_the_pause_is_what_the_server_asks_for_when_that_is_longer():
    assert pause_before(0, response(Retry_After="3"), (1.0, 2.0)) == 3.0
    assert pause_before(1, response(Retry_After="1"), (1.0, 2.0)) == 2.0
    assert pause_before(1, None, (1.0, 2.0)) == 2.0


def test_there_is_no_further_attempt_after_the_last_pause_or_for_a_long_one():
    assert pause_before(2, None, (1.0, 2.0)) is None
    assert pause_before(0, response(Retry_After="3600"), (1.0, 2.0)) is None


def test_a_refusal_is_said_in_words():
    assert answered(response(401)) == "401: the credentials were not accepted"
    assert answered(response(418)) == "418 I'm a teapot"
    assert answered(response(429, Retry_After="5")) == "429: too many requests, and asks to come back in 5 s"


def test_urls_are_shown_without_what_may_be_secret():
    assert shown("https://user:password@host/a?signature=x#y") == "https://host/a"
