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
    ],
)
def test_a_message_does_not_repeat_its_kind(kind, message, told):
    assert news(kind, message) == told
