from __future__ import annotations

import pytest

from bacalhau_p2p.transports.libp2p.names import resolved


async def test_a_name_of_this_computer_is_resolved():
    """py-libp2p asks DNS servers, which do not know what is in /etc/hosts."""
    assert "/ip4/127.0.0.1/tcp/1/p2p/x" in await resolved("/dns4/localhost/tcp/1/p2p/x")
    assert set(await resolved("/dns/localhost/tcp/1")) <= {"/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1"}


@pytest.mark.parametrize("address", ["/ip4/192.0.2.1/tcp/1", "/ip6/::1/tcp/1/p2p/x"])
async def test_an_address_without_a_name_stays(address):
    assert await resolved(address) == [address]


async def test_an_unknown_name_is_an_error():
    with pytest.raises(OSError, match="known"):
        await resolved("/dns4/nosuch.invalid/tcp/1")
