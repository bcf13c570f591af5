"""How long a client goes on asking a node that cannot be reached."""

from __future__ import annotations

import pytest

from bacalhau_p2p.client.retry import Patience
from bacalhau_p2p.errors import NodeUnavailable

GONE = NodeUnavailable("gone")


def test_pauses_grow_and_the_last_attempt_is_at_the_limit():
    patience, now, pauses = Patience(6.0), 100.0, list[float]()
    while now < 106.0:
        pauses.append(patience.pause(GONE, now=now))
        now += pauses[-1]
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 0.9])
    with pytest.raises(NodeUnavailable, match=r"^gone$"):
        patience.pause(GONE, now=now)


def test_a_response_starts_the_time_anew():
    patience = Patience(6.0)
    assert [patience.pause(GONE, now=now) for now in (0.0, 5.0)] == [0.1, 0.2]
    patience.succeeded()
    assert patience.pause(GONE, now=8.0) == 0.1


def test_without_patience_the_first_failure_is_raised():
    with pytest.raises(NodeUnavailable):
        Patience(0.0).pause(GONE, now=7.0)
