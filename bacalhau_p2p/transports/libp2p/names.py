"""Resolves the host names in addresses of peers as other programs of this computer do.

py-libp2p asks DNS servers only, so that a name in /etc/hosts, or of a container beside this one, is unknown.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

import trio

MAX_ADDRESSES = 8
"""Addresses of one name that are dialled."""
_FAMILIES = {"dns": socket.AF_UNSPEC, "dns4": socket.AF_INET, "dns6": socket.AF_INET6}


async def resolved(address: str) -> Sequence[str]:
    """An address without a host name: itself, or those that its name stands for. Raises OSError.

    Cancelled: the thread that asks goes on until the system answers.
    """
    _, kind, host, rest = address.split("/", 3)
    family = _FAMILIES.get(kind)
    if family is None:
        return [address]
    found = await trio.to_thread.run_sync(_look_up, host, family, abandon_on_cancel=True)
    return [f"/{name}/{host}/{rest}" for name, host in found]


def _look_up(host: str, family: socket.AddressFamily) -> list[tuple[str, str]]:
    found = socket.getaddrinfo(host, None, family, socket.SOCK_STREAM)
    names = {socket.AF_INET: "ip4", socket.AF_INET6: "ip6"}
    addresses = [(names[each[0]], str(each[4][0]).partition("%")[0]) for each in found if each[0] in names]
    return list(dict.fromkeys(addresses))[:MAX_ADDRESSES]
