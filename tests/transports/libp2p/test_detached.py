"""Calls into the library that nobody waits for any more."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from bacalhau_p2p.errors import PeerUnreachable
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.transports.libp2p.transport import open_libp2p

pytestmark = pytest.mark.network


async def test_a_call_that_fails_after_its_caller_has_left_harms_nobody():
    begun, go, over = trio.Event(), trio.Event(), trio.Event()

    async def fail_late() -> None:
        begun.set()
        await go.wait()
        over.set()
        raise PeerUnreachable("it went away")

    with trio.fail_after(60):
        async with open_libp2p(Identity.generate(), listen=("/ip4/127.0.0.1/tcp/0",)) as transport:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(transport._detached.run, fail_late)
                await begun.wait()
                nursery.cancel_scope.cancel()
            go.set()
            await over.wait()
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert transport.addresses, "the transport went down with the call"
