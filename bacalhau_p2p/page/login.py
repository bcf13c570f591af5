"""Logging in to the page with the API token: a cookie stands for the token from then on."""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import urlsplit

from fastapi import Response
from starlette.requests import cookie_parser

COOKIE = "bacalhau_p2p_session"


def session_of(token: str) -> str:
    """What the cookie has: nobody learns the token from it, and another token makes it worthless."""
    return hmac.new(token.encode(), b"bacalhau_p2p page session", hashlib.sha256).hexdigest()


def session_in(cookies: str) -> str:
    """What the cookie has in this header, or nothing. It is `session_of` of the token if it was given to
    somebody who knew the token."""
    return cookie_parser(cookies).get(COOKIE, "") if COOKIE in cookies else ""


def log_in(response: Response, token: str) -> None:
    """Scripts cannot read the cookie, and pages of other sites cannot use it."""
    response.set_cookie(COOKIE, session_of(token), httponly=True, samesite="strict", path="/")


def log_out(response: Response) -> None:
    response.delete_cookie(COOKIE, httponly=True, samesite="strict", path="/")


def safe_target(target: str) -> str:
    """A path of this site to go to; `/` for anything else."""
    try:
        parts = urlsplit(target)
    except ValueError:
        return "/"
    local = (
        target.startswith("/") and not target.startswith(("//", "/\\")) and not (parts.scheme or parts.netloc)
    )
    return target if local and target.isprintable() else "/"
