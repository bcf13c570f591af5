"""The checks that every transport must pass, with nodes in this process.

They are in `testing.transports`: `testing.transports.bench`, `testing.transports.broadcasts`,
`testing.transports.frames`, `testing.transports.lifetimes`, `testing.transports.peers` and
`testing.transports.streams`.
"""

from __future__ import annotations

import pytest

from bacalhau_p2p.testing.transports import CHECKS
from bacalhau_p2p.transports.libp2p.transport import open_libp2p


@pytest.mark.network
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance(check):
    await check(open_libp2p)
