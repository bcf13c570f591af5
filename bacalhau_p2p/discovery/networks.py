"""The private networks that this machine is part of."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)

import ifaddr

_PRIVATE = tuple(map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))
"""Private addresses, of RFC 1918 and RFC 4193. Not loopback, and not link-local ones, among which are the
metadata services of clouds."""


@dataclass(frozen=True)
class LocalNetwork:
    """An address of this machine, and the network behind it."""

    ip: IPv4Address | IPv6Address
    network: IPv4Network | IPv6Network
    interface: int
    """The index of the network interface."""


def own_networks() -> list[LocalNetwork]:
    """The private networks of all interfaces. Reads them from the operating system."""
    found = []
    for adapter in ifaddr.get_adapters():
        for address in adapter.ips:
            text = address.ip if isinstance(address.ip, str) else address.ip[0]
            own = ip_interface(f"{text}/{address.network_prefix}")
            if is_private(own.ip) and adapter.index is not None:
                found.append(LocalNetwork(own.ip, own.network, adapter.index))
    return found


def is_private(ip: IPv4Address | IPv6Address) -> bool:
    return any(ip in network for network in _PRIVATE if network.version == ip.version)


def has_private_address(addresses: Iterable[str]) -> bool:
    """Whether one of these multiaddrs is in a private network."""
    return any((ip := ip_of_address(address)) is not None and is_private(ip) for address in addresses)


def networks_of(addresses: Iterable[str], networks: Collection[LocalNetwork]) -> list[LocalNetwork]:
    """The networks in which this node has one of these multiaddrs."""
    own = {ip_of_address(address) for address in addresses}
    return [network for network in networks if network.ip in own]


def addresses_within(addresses: Iterable[str], networks: Collection[LocalNetwork]) -> Sequence[str]:
    """Those multiaddrs that are in one of the networks, and that no name server is needed for."""
    return [address for address in addresses if _is_within(ip_of_address(address), networks)]


def ip_of_address(address: str) -> IPv4Address | IPv6Address | None:
    """The IP address in `/ip4/<address>/...` or `/ip6/<address>/...`; None for all other multiaddrs."""
    parts = address.split("/", 3)
    if len(parts) < 3 or parts[1] not in ("ip4", "ip6"):
        return None
    try:
        ip = ip_address(parts[2])
    except ValueError:
        return None
    return ip if f"ip{ip.version}" == parts[1] else None


def _is_within(ip: IPv4Address | IPv6Address | None, networks: Collection[LocalNetwork]) -> bool:
    return any(ip in own.network for own in networks if ip is not None and own.network.version == ip.version)
