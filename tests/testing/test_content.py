from __future__ import annotations

import pytest

from bacalhau_p2p.errors import ContentNotFound
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.testing.content import content_without_peers


async def test_what_is_added_is_there_and_nothing_else_can_be_found(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    with content_without_peers(tmp_path / "blocks") as content:
        cid = (await content.add(tmp_path / "a.txt", pin_owner="test")).cid
        assert await content.has(cid)
        with pytest.raises(ContentNotFound):
            await content.fetch(CID.of(RAW, b"of nobody"))
