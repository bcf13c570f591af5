"""What clients of a server are counted under: their IPv4 address, or their IPv6 /64 network."""

from __future__ import annotations

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def network_of(host: str) -> str:
    """The network of a client: who has one address of an IPv6 /64 network can have all. A host that is no
    address is its own network."""
    address = _address(host)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return host if address is None else str(address)


def is_loopback(host: str) -> bool:
    """Whether a client runs on this machine."""
    address = _address(host)
    return address is not None and address.is_loopback


def _address(host: str) -> Address | None:
    """An IPv4 address, though an IPv6 socket shows it as one of its own."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped
