"""Where others reach a node: its multiaddrs, its HTTP API and its gateway."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from bacalhau_p2p.errors import SettingsError
from bacalhau_p2p.settings import Settings
from bacalhau_p2p.transports.interface import Transport

_ALL_INTERFACES = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not bound to


def listen_addresses(host: str, port: int) -> tuple[str, ...]:
    """The multiaddrs to listen on at an address or name of this computer. Raises SettingsError."""
    try:
        address = ip_address(host)
    except ValueError:
        address = ip_address(_resolved(host))
    return (f"/ip{address.version}/{address}/tcp/{port}",)


def _resolved(host: str) -> str:
    """The address of a name, an IPv4 address if it has one."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SettingsError(
            f"swarm_host: {host!r} is neither an address nor a known name: {reason}"
        ) from None
    found.sort(key=lambda each: each[0] != socket.AF_INET)
    return str(found[0][4][0]).partition("%")[0]


class NodeAddresses:
    """The addresses of one node. They change while it runs."""

    def __init__(self, settings: Settings, transport: Transport) -> None:
        self._settings = settings
        self._transport = transport
        self.api_url = ""
        """`http://host:port` while an API serves this node."""

    @property
    def multiaddrs(self) -> tuple[str, ...]:
        """Multiaddrs at which peers can dial this node, each ending in `/p2p/<peer id>`."""
        return tuple(self._transport.addresses)

    @property
    def gateway_url(self) -> str:
        """The URL at which other nodes reach this node's gateway; empty if they cannot."""
        settings = self._settings
        if not settings.gateway:
            return ""
        if settings.gateway_url or settings.api_on_loopback or not self.api_url:
            return settings.gateway_url
        if settings.api_host not in _ALL_INTERFACES:
            return self.api_url
        _, _, port = self.api_url.rpartition(":")
        hosts = [address.split("/")[1:3] for address in self.multiaddrs]
        return next((f"http://{host}:{port}" for kind, host in hosts if kind in ("ip4", "dns4", "dns")), "")
