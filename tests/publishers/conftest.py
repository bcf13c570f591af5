from __future__ import annotations

import pytest

from bacalhau_p2p.content.blockstore import BlockStore
from bacalhau_p2p.content.exchange import Exchange, ExchangeLimits
from bacalhau_p2p.content.service import Content
from bacalhau_p2p.errors import PeerUnreachable


@pytest.fixture
def content(tmp_path):
    """The content of a node that has no peers."""

    async def unreachable(peer, protocol):
        raise PeerUnreachable(f"{peer} cannot be reached")

    with BlockStore(tmp_path / "blocks") as blocks:
        yield Content(blocks, Exchange(blocks, unreachable, limits=ExchangeLimits(find=2)), lambda: ())


@pytest.fixture
async def result(content, tmp_path):
    """The CID of a results folder that the node's store holds."""
    folder = tmp_path / "results"
    (folder / "outputs").mkdir(parents=True)
    (folder / "stdout").write_text("hello\n")
    (folder / "exitCode").write_text("0")
    (folder / "outputs" / "data.bin").write_bytes(bytes(range(256)) * 3000)
    return str((await content.add(folder, pin_owner="execution")).cid)
