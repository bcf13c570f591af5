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


def test_a_node_that_has_never_responded_is_not_waited_for_where_that_is_wanted():
    patience = Patience(6.0, from_start=False)
    with pytest.raises(NodeUnavailable):
        patience.pause(GONE, now=1.0)
    patience.succeeded()
    assert patience.pause(GONE, now=2.0) == 0.1


def test_a_loss_is_told_once_each_time_and_only_if_it_lasts():
    told: list[int] = []
    patience = Patience(6.0, on_loss=lambda: told.append(len(told)))
    patience.pause(GONE, now=0.0)
    patience.succeeded()
    assert told == []
    for now in (1.0, 1.1, 1.3, 1.7):
        patience.pause(GONE, now=now)
    assert told == [0]
    patience.succeeded()
    for now in (2.0, 2.1):
        patience.pause(GONE, now=now)
    assert told == [0, 1]
