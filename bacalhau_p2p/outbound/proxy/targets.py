"""What a request to the proxy is about, and what of it is passed on. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import h11

from bacalhau_p2p.model.domains import is_allowed, normal_host

TLS_PORT = 443
"""The only port for CONNECT."""
HTTP_PORT = 80
"""The only port for requests in plain HTTP."""

_SHOWN = 128
"""Characters of a host that an answer or a hint quotes."""
_HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"te", b"trailer", b"upgrade"})

Headers = list[tuple[bytes, bytes]]


class RequestRefused(Exception):
    """Why the proxy does not do what a request asks for; the text is for the author of the job."""

    def __init__(self, status: int, reason: str, host: str = "") -> None:
        super().__init__(reason)
        self.status = status
        """That of the answer."""
        self.host = host
        """What the request asked for, if that is why."""


@dataclass(frozen=True, slots=True)
class Target:
    """A host, in its normal form, and its port. `path` is for plain HTTP, and None for a tunnel."""

    host: str
    port: int
    path: bytes | None = None


def target_of(request: h11.Request, domains: Iterable[str]) -> Target:
    """What a request asks for. Raises RequestRefused unless it is one of these domains, at a port for it."""
    if request.method == b"CONNECT":
        authority, path, port = request.target, None, TLS_PORT
    else:
        scheme, separator, rest = request.target.partition(b"://")
        if not separator or b"/" in scheme:
            raise RequestRefused(400, "this is a proxy: it takes absolute URLs and CONNECT")
        if scheme.lower() != b"http":
            raise RequestRefused(400, "only http is passed on; https and others need CONNECT")
        end = min((at for each in (b"/", b"?", b"#") if (at := rest.find(each)) >= 0), default=len(rest))
        authority, path, port = rest[:end], rest[end:] or b"/", HTTP_PORT
        if not path.startswith(b"/"):
            path = b"/" + path
    return Target(_host(authority.decode("latin-1"), port, domains), port, path)


def _host(authority: str, port: int, domains: Iterable[str]) -> str:
    """The host of `host[:port]`. Raises RequestRefused."""
    name, colon, given = authority.rpartition(":")
    if not colon or authority.endswith("]"):
        name, given = authority, str(port)
    shown = authority[:_SHOWN]
    if given != str(port):
        raise RequestRefused(403, f"{shown}: only the ports 80, for http, and 443, for CONNECT", shown)
    host = normal_host(name)
    if host is None:
        raise RequestRefused(
            403, f"{shown} is not a domain: addresses and local names cannot be reached", shown
        )
    if not is_allowed(host, domains):
        raise RequestRefused(403, f"{host} is not among the domains of this job (Network.Domains)", host)
    return host


def headers_to_server(headers: Iterable[tuple[bytes, bytes]], host: str) -> Headers:
    """Those of a request as they are passed on: the host is that of the URL, which was checked, and the
    connection serves no other request."""
    passed = [(name, value) for name, value in _end_to_end(headers) if name != b"host"]
    return [(b"host", host.encode()), *passed, (b"connection", b"close")]


def headers_to_client(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Those of an answer as they are passed on."""
    return [*_end_to_end(headers), (b"connection", b"close")]


def _end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    given = [(name.lower(), value) for name, value in headers]
    named = {
        each.strip().lower() for name, value in given if name == b"connection" for each in value.split(b",")
    }
    # The framing is that of each connection; h11 needs these headers to know it.
    dropped = (_HOP_BY_HOP | named) - {b"content-length", b"transfer-encoding", b"host"}
    return [(name, value) for name, value in given if name not in dropped and not name.startswith(b"proxy-")]
