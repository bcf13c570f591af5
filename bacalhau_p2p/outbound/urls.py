"""Parses URLs that strangers wrote: in jobs, in redirects, in announcements of nodes.

One place does it, because parsers of URLs raise more kinds of errors than they document, and later than one
expects: `http://xn--a/` is a URL for httpx until somebody asks for its host.
"""

from __future__ import annotations

import re

import httpx

from bacalhau_p2p.model.domains import MAX_HOST

MAX_URL = 4096
"""Characters of a URL."""

_AUTHORITY = re.compile(r"https?://([^/?#]{1,512})", re.IGNORECASE)


class InvalidWebURL(ValueError):
    """What is wrong with a URL, in words that follow its name."""


def parse_web_url(text: str) -> httpx.URL:
    """An http or https URL, each part of which can be read. Raises InvalidWebURL."""
    if len(text) > MAX_URL:
        raise InvalidWebURL(f"is longer than {MAX_URL} characters")
    # The parser takes quadratic time for a long host, so that its length comes first.
    authority = _AUTHORITY.match(text)
    if authority is None:
        raise InvalidWebURL("is not an http or https URL")
    try:
        return _checked(httpx.URL(text))
    except (httpx.InvalidURL, ValueError):  # UnicodeError and errors of idna are ValueErrors
        raise InvalidWebURL("is not a URL") from None


def join_web_url(base: httpx.URL, location: str) -> httpx.URL:
    """The URL of `location`, which may be relative to `base`, and have any scheme. Raises InvalidWebURL."""
    if len(location) > MAX_URL or len(location.partition("//")[2].partition("/")[0]) > 512:
        raise InvalidWebURL(f"is longer than {MAX_URL} characters")
    try:
        url = base.join(location)
        return _checked(url) if url.scheme in ("http", "https") else url
    except (httpx.InvalidURL, ValueError):
        raise InvalidWebURL("is not a URL") from None


def _checked(url: httpx.URL) -> httpx.URL:
    """The URL; raises ValueError and InvalidURL for one with a part that cannot be read or used."""
    host, port = url.host, url.port
    if not host or len(url.raw_host) > MAX_HOST or (port is not None and not 0 < port < 65536):
        raise ValueError
    str(url).encode("ascii")
    return url
