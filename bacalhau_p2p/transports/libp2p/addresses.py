"""Multiaddrs of peers and listeners: validated, and expanded to addresses that others can dial."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from libp2p.peer.id import ID
from libp2p.utils.address_validation import get_available_interfaces
from multiaddr import Multiaddr
from multiaddr.exceptions import Error as MultiaddrError

from bacalhau_p2p.encoding.multiaddrs import check_user_peer_address, parse_multiaddr
from bacalhau_p2p.errors import RemoteProtocolError, SettingsError
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.runtime.listen_faults import why_not_listening


def parse_peer_address(address: str) -> PeerID:
    """The peer in a TCP multiaddr that ends in `/p2p/<peer id>`. Raises ValueError."""
    try:
        whole = parse_multiaddr(address)
        peer = whole.value_for_protocol("p2p")
        protocols = [protocol.name for protocol in whole.protocols()]
        peer_id = ID.from_base58(peer)
    except (RemoteProtocolError, MultiaddrError, ValueError, LookupError, TypeError) as fault:
        raise ValueError(f"not a multiaddr that ends in /p2p/<peer id>: {address!r}") from fault
    if protocols[-1] != "p2p" or "tcp" not in protocols:
        raise ValueError(f"not a TCP multiaddr that ends in /p2p/<peer id>: {address!r}")
    return PeerID(peer_id.to_base58())


def parse_bootstrap_address(address: str) -> PeerID:
    """The peer at a bootstrap address. Raises SettingsError."""
    try:
        check_user_peer_address(address)
    except ValueError as error:
        raise SettingsError(f"peers: {error}") from None
    return parse_peer_address(address)


def parse_announced_address(address: str) -> Multiaddr:
    """A TCP multiaddr to announce to other peers. Raises SettingsError."""
    return _parse_tcp(address, "announced", ("ip4", "ip6", "dns", "dns4", "dns6"))


def parse_listen_address(address: str) -> Multiaddr:
    """A TCP multiaddr on which this process can listen now. Raises SettingsError."""
    parsed = _parse_tcp(address, "listen", ("ip4", "ip6"))
    port = int(parsed.value_for_protocol("tcp"))
    host = parsed.value_for_protocol(parsed.protocols()[0].name)
    # py-libp2p sets SO_REUSEPORT, so two nodes of one user can listen on one port, and each gets some of the
    # other's connections. Without that option the kernel reports that the port is in use. Nor does py-libp2p
    # tell why it cannot listen.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as fault:
            reason = why_not_listening(fault, host_flag="--swarm-host", port_flag="--swarm-port")
            raise SettingsError(f"cannot listen on {address}: {reason}") from fault
    return parsed


def _parse_tcp(address: str, purpose: str, hosts: Sequence[str]) -> Multiaddr:
    try:
        parsed = parse_multiaddr(address)
        names = [protocol.name for protocol in parsed.protocols()]
    except RemoteProtocolError as fault:
        raise SettingsError(f"{purpose} address {address!r} is not a multiaddr: {fault}") from fault
    if len(names) < 2 or names[0] not in hosts or names[1] != "tcp" or set(names[2:]) - {"p2p"}:
        raise SettingsError(f"{purpose} address {address!r} is not of the form /ip4/<address>/tcp/<port>")
    return parsed


def expand_wildcard(address: Multiaddr) -> list[Multiaddr]:
    """A wildcard address as those of all interfaces that reach it: nobody can dial 0.0.0.0."""
    family = address.protocols()[0].name
    if address.value_for_protocol(family) not in ("0.0.0.0", "::"):  # noqa: S104 - not bound to here
        return [address]
    interfaces = get_available_interfaces(int(address.value_for_protocol("tcp")))
    both = family == "ip6" and not _ipv6_only()
    return [candidate for candidate in interfaces if both or candidate.protocols()[0].name == family]


def _ipv6_only() -> bool:
    """Whether a socket on :: accepts no IPv4 connections."""
    try:
        return Path("/proc/sys/net/ipv6/bindv6only").read_text().strip() != "0"
    except OSError:
        return True


@lru_cache(maxsize=1024)
def address_text(address: Multiaddr) -> str:
    """The text of a multiaddr, which is slow to compute and needed often."""
    return str(address)
