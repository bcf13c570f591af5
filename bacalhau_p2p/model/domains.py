"""Domains that a job may reach, written as in Bacalhau: `example.com`, and `.example.com` with all below it.

`*.example.com` is what is below it, without itself. Names are compared in lower case, without a dot at their
end. An IP address is no domain, in none of its notations: who writes one skips the names that are allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

MAX_HOST = 253
"""Characters of a host name, as in DNS."""

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"(?:{_LABEL}\.)+{_LABEL}")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


def normal_host(text: str) -> str | None:
    """A host name with at least two labels, in lower case; None for any other text and for IP addresses."""
    host = text.lower().removesuffix(".")
    if len(host) > MAX_HOST or not host.isascii() or not _HOST.fullmatch(host):
        return None
    # 127.1 and 0x7f.1 are addresses for those who resolve names: their last label is a number.
    return None if _NUMBER.fullmatch(host.rpartition(".")[2]) else host


def _domain(text: str) -> str:
    given = text.strip().lower()
    prefix = next((each for each in ("*.", ".") if given.startswith(each)), "")
    host = normal_host(given.removeprefix(prefix))
    if host is None:
        raise ValueError(
            "must be a domain such as example.com, or .example.com with all below it, in ASCII, "
            "without scheme and port"
        )
    return prefix + host


Domain = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(_domain)]
"""A domain in its normal form."""


def is_allowed(host: str, domains: Iterable[str]) -> bool:
    """Whether a host, in the form of `normal_host`, is one of these domains."""
    return any(_matches(host, domain) for domain in domains)


def is_covered(domain: str, domains: Iterable[str]) -> bool:
    """Whether every host of a domain is one of these domains."""
    host = domain.lstrip("*.")
    for each in domains:
        if domain == each or (each.startswith(".") and _matches(host, each)):
            return True
        if each.startswith("*."):
            if _matches(host, each) or (domain.startswith("*.") and host == each[2:]):
                return True
        elif domain == host == each:
            return True
    return False


def _matches(host: str, domain: str) -> bool:
    if domain.startswith("*."):
        return host.endswith(domain[1:])
    return host == domain.removeprefix(".") or (domain.startswith(".") and host.endswith(domain))
