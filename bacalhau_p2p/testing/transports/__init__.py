"""The conformance suite of transports: run each of `CHECKS` on yours.

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    async def test_my_transport(check):
        await check(open_my_transport)

`open_my_transport(identity)` opens a transport that knows no other peer yet. A check raises AssertionError,
or trio.TooSlowError when something that must happen does not within `PATIENCE` seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from bacalhau_p2p.testing.transports import broadcasts, frames, lifetimes, peers, streams
from bacalhau_p2p.testing.transports.bench import (
    ECHO,
    HOLD,
    PATIENCE,
    TOPIC,
    OpenTransport,
    broadcast_until_received,
    echo,
    expect,
    hold,
    open_connected,
    raises,
    read_all,
)

__all__ = [
    "CHECKS",
    "ECHO",
    "HOLD",
    "PATIENCE",
    "TOPIC",
    "OpenTransport",
    "broadcast_until_received",
    "echo",
    "expect",
    "hold",
    "open_connected",
    "raises",
    "read_all",
]

CHECKS: Final[Sequence[Callable[[OpenTransport], object]]] = tuple(
    value
    for module in (broadcasts, frames, peers, streams, lifetimes)
    for name, value in vars(module).items()
    if name.startswith("check_")
)
"""Every check of these modules; each is a coroutine function that takes an `OpenTransport`."""
