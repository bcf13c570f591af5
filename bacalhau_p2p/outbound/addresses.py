"""Which addresses this node connects to when a job names the host.

Without this check a job could reach what only the node can reach: services of the machine, its local
network, the metadata service of a cloud. A name is resolved once, every address it has is checked, and
the connection goes to a checked address: a name that resolves differently a moment later gains nothing.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterable
from functools import cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from math import inf

import httpcore
import httpx
import trio

from bacalhau_p2p.errors import SettingsError
from bacalhau_p2p.outbound.urls import InvalidWebURL, join_web_url
from bacalhau_p2p.runtime.threads import Threads

_NAT64 = IPv6Network("64:ff9b::/96")
_SHARED = ip_network("100.64.0.0/10")


LOOKUPS = 8
"""Host names that are looked up at the same time. A name server that does not answer holds a thread for half
a minute, which must be none of trio's own."""


class AddressRefused(Exception):
    """A host has an address that jobs may not reach. The text says which."""


Resolver = Callable[[bytes, int], list[str]]
"""The addresses of a host. Blocks. Raises OSError."""


def _system_resolver(name: bytes, port: int) -> list[str]:
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class AddressGuard:
    """Permits addresses of the public internet, and those in `allowed` networks (`10.1.0.0/16`)."""

    def __init__(self, allowed: Iterable[str] = (), *, resolver: Resolver = _system_resolver) -> None:
        """Raises SettingsError for a text that is not a network."""
        self._threads = Threads(LOOKUPS)
        self._resolver = resolver
        try:
            self._allowed = tuple(ip_network(text.strip()) for text in allowed)
        except ValueError as error:
            raise SettingsError(f"allow_private_networks: {error}") from None

    def permits(self, address: str) -> bool:
        """Whether this node connects to an IP address for a job."""
        try:
            ip = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        return all(_public(each) or self._is_allowed(each) for each in _embedded_in(ip))

    def _is_allowed(self, ip: IPv4Address | IPv6Address) -> bool:
        return any(ip in network for network in self._allowed if network.version == ip.version)

    async def look_up(self, host: str, port: int) -> list[str]:
        """The addresses of a host, not checked. Raises OSError. Cancelled: returns at once."""
        try:
            # As bytes: the codec for names in text refuses some with an error of its own.
            name = host.encode("ascii")
        except UnicodeError:
            raise OSError("not a host name") from None
        return await self._threads.run_abandonable(self._resolver, name, port)

    async def resolve(self, host: str, port: int) -> list[str]:
        """The addresses of a host, each of them permitted. Raises AddressRefused, OSError."""
        addresses = list(dict.fromkeys(await self.look_up(host, port)))
        for address in addresses:
            if not self.permits(address):
                named = host if host == address else f"{address} (of {host})"
                raise AddressRefused(f"{named} is not a public address, nor in allow_private_networks")
        return addresses


def _embedded_in(ip: IPv4Address | IPv6Address) -> list[IPv4Address | IPv6Address]:
    """The IPv4 addresses that an IPv6 address stands for, or the address itself."""
    if isinstance(ip, IPv4Address):
        return [ip]
    if ip.ipv4_mapped is not None:
        return [ip.ipv4_mapped]
    if ip.sixtofour is not None:
        return [ip.sixtofour]
    if ip.teredo is not None:
        return list(ip.teredo)
    if ip in _NAT64:
        return [IPv4Address(int(ip) & 0xFFFFFFFF)]
    return [ip]


def _public(ip: IPv4Address | IPv6Address) -> bool:
    if isinstance(ip, IPv6Address) and ip.is_site_local:
        return False
    special = ip.is_multicast or ip.is_reserved or ip.is_loopback or ip.is_link_local or ip.is_unspecified
    return ip.is_global and not special and ip not in _SHARED


class _GuardedBackend(httpcore.TrioBackend):
    def __init__(self, guard: AddressGuard) -> None:
        self._guard = guard

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            with trio.fail_after(inf if timeout is None else timeout):
                addresses = await self._guard.resolve(host, port)
        except trio.TooSlowError:
            raise httpcore.ConnectTimeout("the host name was not resolved in time") from None
        except OSError as error:
            raise httpcore.ConnectError(f"unknown host: {error.strerror or error}") from None
        failure: httpcore.ConnectError | httpcore.ConnectTimeout | None = None
        for address in addresses:
            try:
                return await super().connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore.ConnectError("the host name has no address")


class _GuardedTransport(httpx.AsyncHTTPTransport):
    """httpx's transport, with a pool that connects through the guard."""

    def __init__(self, guard: AddressGuard) -> None:
        super().__init__(verify=tls_context())
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls_context(), network_backend=_GuardedBackend(guard), max_connections=8
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises InvalidWebURL for a redirect to what is not a URL, which httpx would parse itself."""
        response = await super().handle_async_request(request)
        if response.has_redirect_location:
            try:
                join_web_url(request.url, response.headers["location"])
            except InvalidWebURL:
                await response.aclose()
                raise
        return response


@cache  # reading the certificates takes tens of milliseconds
def tls_context() -> ssl.SSLContext:
    """How to verify certificates: by the authorities that httpx trusts."""
    return httpx.create_ssl_context()


def guarded_client(guard: AddressGuard, *, idle: float) -> httpx.AsyncClient:
    """A client for URLs from jobs: every connection, that of a redirect too, passes the guard.

    Uses no proxy, cookie or password of the environment. Redirects are left to the caller; a request whose
    answer redirects to what is not a URL raises InvalidWebURL. `idle`: seconds without a byte.
    """
    return httpx.AsyncClient(transport=_GuardedTransport(guard), timeout=httpx.Timeout(idle), trust_env=False)
