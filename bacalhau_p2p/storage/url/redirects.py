"""Which redirects of a download are followed."""

from __future__ import annotations

import httpx

from bacalhau_p2p.errors import StorageError
from bacalhau_p2p.outbound.http import redacted
from bacalhau_p2p.outbound.urls import InvalidWebURL, join_web_url

MAX_REDIRECTS = 10


def redirect_target(asked: str, url: httpx.URL, response: httpx.Response) -> httpx.URL:
    """The URL to which `response` redirects from `url`, in a download of the URL `asked`.

    Raises StorageError, permanent, for one that is not followed.
    """
    try:
        target = join_web_url(url, response.headers["location"])
    except InvalidWebURL:
        raise _refused(asked, "an invalid URL") from None
    if target.scheme not in ("http", "https"):
        raise _refused(asked, f"{target.scheme}, not http or https")
    if url.scheme == "https" and target.scheme == "http":
        raise _refused(asked, "http, from https")
    return target.copy_with(username=None, password=None)


def _refused(asked: str, target: str) -> StorageError:
    return StorageError(f"download of {redacted(asked)} failed: redirect to {target}", permanent=True)
