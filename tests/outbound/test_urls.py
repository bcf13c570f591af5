"""URLs of strangers."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bacalhau_p2p.outbound.urls import MAX_URL, InvalidWebURL, join_web_url, parse_web_url

BASE = httpx.URL("https://example.org/a/b")
INVALID = [
    "",
    "x",
    "ftp://example.org/",
    "http://",
    "http:///path",
    "http://xn--a/",
    "http://xn--ls8h.la/x",
    "http://a\ud800b/",
    "http://example.org/\ud800",
    "http://[::1",
    "http://example.org:0/",
    "http://example.org:65536/",
    "http://example.org:0x10/",
    "http://" + "\u00fc" * 300 + "/",
    "http://" + "a." * 2000 + "/",
    "http://example.org/" + "a" * MAX_URL,
]


@pytest.mark.parametrize("text", INVALID, ids=range(len(INVALID)))
def test_an_invalid_url_has_one_kind_of_error(text):
    with pytest.raises(InvalidWebURL):
        parse_web_url(text)


@pytest.mark.parametrize(
    "text",
    [
        "http://example.org",
        "HTTPS://example.org:8443/a?b#c",
        "http://xn--bcher-kva.de/",
        "http://b\u00fccher.de/\u00e4",
        "http://1.2.3.4/",
        "http://[2606:4700::1111]:80/x",
    ],
)
def test_a_valid_url_can_be_read(text):
    url = parse_web_url(text)
    assert url.scheme in ("http", "https")
    assert url.host


@given(
    st.text(max_size=200), st.sampled_from(["", "http://", "https://xn--", "//", "http://h/", "http://h:"])
)
def test_any_text_is_a_url_or_an_invalid_one(text, prefix):
    for parse in (parse_web_url, lambda location: join_web_url(BASE, location)):
        try:
            url = parse(prefix + text)
        except InvalidWebURL:
            continue
        assert isinstance(url.host, str)
        assert str(url).isascii()


@pytest.mark.parametrize("location", ["http://xn--a/", "//xn--a/", "/" + "a" * MAX_URL, "http://h:99999/"])
def test_a_redirect_to_an_invalid_url_has_the_same_kind_of_error(location):
    with pytest.raises(InvalidWebURL):
        join_web_url(BASE, location)


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("c", "https://example.org/a/c"),
        ("//other.org/", "https://other.org/"),
        ("ftp://x/y", "ftp://x/y"),
        ("file:///etc/passwd", "file:///etc/passwd"),
    ],
)
def test_a_redirect_may_be_relative_and_have_any_scheme(location, target):
    assert join_web_url(BASE, location) == httpx.URL(target)
