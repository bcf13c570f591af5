"""Which parts a node has as a peer."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.node.networking import build_networking
from bacalhau_p2p.settings import Settings
from bacalhau_p2p.transports.memory.network import MemoryNetwork

PRIVATE = ["/ip4/127.0.0.1/tcp/1", "/ip4/192.168.1.5/tcp/1"]


@pytest.mark.parametrize(
    ("mdns", "addresses", "used"),
    [
        (True, PRIVATE, True),
        (False, PRIVATE, False),
        (True, ["/ip4/127.0.0.1/tcp/1"], False),
        (True, ["/ip4/203.0.113.5/tcp/1"], False),
    ],
)
async def test_mdns_is_used_where_a_node_has_a_private_address(
    tmp_path: Path, monkeypatch, mdns, addresses, used
):
    identity = Identity.generate()
    settings = Settings(data_dir=tmp_path, mdns=mdns)
    async with MemoryNetwork().open(identity) as transport:
        monkeypatch.setattr(type(transport), "addresses", addresses)
        networking = build_networking(settings, identity, transport, lambda: 0.0, random.Random(1))
        assert (networking.mdns is not None) is used
