"""Connections to the hosts that jobs name: resolved once, and made to an address that was checked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from bacalhau_p2p.outbound.addresses import AddressGuard

OpenStream = Callable[[str, int], Awaitable[trio.abc.HalfCloseableStream]]
"""Connects to an IP address and a port. Raises OSError."""


class Dialer:
    """Opens connections on behalf of jobs."""

    def __init__(self, guard: AddressGuard, open_stream: OpenStream = trio.open_tcp_stream) -> None:
        """Every address is checked by `guard`, whatever `open_stream` then does with it."""
        self._guard = guard
        self._open_stream = open_stream

    async def connect(self, host: str, port: int) -> trio.abc.HalfCloseableStream:
        """A connection to the first address of the host that answers. Raises AddressRefused, and OSError when
        the host is unknown or none of its addresses answers."""
        failure = OSError("the host name has no address")
        for address in await self._guard.resolve(host, port):
            try:
                return await self._open_stream(address, port)
            except OSError as error:
                failure = error
        raise failure
