"""Sockets for multicast DNS: UDP port 5353 in one private network."""

from __future__ import annotations

import socket
import struct
from typing import Protocol

import trio

from bacalhau_p2p.discovery.networks import LocalNetwork

PORT = 5353
GROUP_4, GROUP_6 = "224.0.0.251", "ff02::fb"
MAX_PACKET = 9000
"""Bytes of a packet, by the specification of multicast DNS. Longer ones are cut, and so not read."""
_HOPS = 255
_IP_MULTICAST_ALL, _IPV6_MULTICAST_ALL = 49, 29
"""Linux; Python does not name them. Off: only what is sent to the groups that this socket joined."""


class Multicast(Protocol):
    """Packets of one network."""

    async def send(self, packet: bytes) -> None:
        """To everybody in the network. Raises OSError."""

    async def receive(self) -> tuple[bytes, str]:
        """The next packet, and the IP address of its sender. Raises OSError."""

    def close(self) -> None:
        """Release it."""


class MulticastSocket:
    """A `Multicast` of the operating system. Other programs of this machine may listen on the same port."""

    def __init__(self, network: LocalNetwork) -> None:
        """Join the group of the network. Raises OSError."""
        is_4 = network.ip.version == 4
        raw = socket.socket(socket.AF_INET if is_4 else socket.AF_INET6, socket.SOCK_DGRAM)
        try:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self._destination = _join_4(raw, network) if is_4 else _join_6(raw, network)
        except BaseException:
            raw.close()
            raise
        raw.setblocking(False)
        self._socket = trio.socket.from_stdlib_socket(raw)

    async def send(self, packet: bytes) -> None:
        await self._socket.sendto(packet, self._destination)

    async def receive(self) -> tuple[bytes, str]:
        packet, source = await self._socket.recvfrom(MAX_PACKET)
        return packet, source[0].partition("%")[0]

    def close(self) -> None:
        self._socket.close()


def _join_4(raw: socket.socket, network: LocalNetwork) -> tuple[str, int]:
    group, own = socket.inet_aton(GROUP_4), network.ip.packed
    raw.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
    raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, _HOPS)
    raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)  # other nodes of this machine
    where = struct.pack("=4s4si", group, own, network.interface)
    raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, where)
    raw.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, where)
    raw.bind((GROUP_4, PORT))  # and so nothing that is sent to this machine alone
    return GROUP_4, PORT


def _join_6(raw: socket.socket, network: LocalNetwork) -> tuple[str, int, int, int]:
    group = socket.inet_pton(socket.AF_INET6, GROUP_6)
    raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    raw.setsockopt(socket.IPPROTO_IPV6, _IPV6_MULTICAST_ALL, 0)
    raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, _HOPS)
    raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 1)
    raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, network.interface)
    raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group + struct.pack("=i", network.interface))
    raw.bind((GROUP_6, PORT, 0, network.interface))
    return GROUP_6, PORT, 0, network.interface
