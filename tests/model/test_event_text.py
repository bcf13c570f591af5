from __future__ import annotations

import pytest

from bacalhau_p2p.model.event_text import news


@pytest.mark.parametrize(
    ("kind", "message", "told"),
    [
        ("Submitted", "submitted", ""),
        ("Submitted", "submitted; for 3 nodes", "for 3 nodes"),
        ("Bid", "bids", ""),
        ("Running", "running", ""),
        ("Accepted", "accepted; preparing", "preparing"),
        ("Failed", "no such\n image", "no such image"),
        ("Failed", "", ""),
        ("Waiting", "waiting for a node: bob is busy", "for a node: bob is busy"),
        ("Accepted", "partition 0: accepted; preparing", "partition 0: preparing"),
        ("Running", "partition 12: running", "partition 12"),
        ("Failed", "partition 12: no such image", "partition 12: no such image"),
    ],
)
def test_a_message_does_not_repeat_its_kind(kind, message, told):
    assert news(kind, message) == told
