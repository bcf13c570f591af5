from __future__ import annotations

import logging
from collections import Counter

import pytest
import trio

from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.transports.faults import FaultBarrier


@pytest.mark.parametrize(
    ("fault", "level"),
    [
        (RemoteProtocolError("half a message"), logging.INFO),
        (trio.TooSlowError(), logging.INFO),
        (ValueError("of ours"), logging.WARNING),
    ],
)
def test_peers_cannot_fill_the_log_with_warnings(caplog, fault, level):
    counters = Counter[str]()
    with caplog.at_level(logging.INFO, logger="bacalhau_p2p"):
        for _ in range(3):
            with FaultBarrier(counters, "handler_faults", "a handler", level=logging.WARNING) as barrier:
                raise fault
            assert barrier.fault is fault
    assert [record.levelno for record in caplog.records] == [level] * 3
    assert counters == {"handler_faults": 3}


def test_expected_exceptions_are_neither_counted_nor_logged(caplog):
    counters = Counter[str]()
    with FaultBarrier(counters, "handler_faults", "a handler", expected=trio.BrokenResourceError):
        raise ExceptionGroup("", [trio.BrokenResourceError(), trio.BrokenResourceError()])
    assert (list(caplog.records), counters) == ([], {})


def test_a_cancellation_passes():
    with pytest.raises(KeyboardInterrupt), FaultBarrier(Counter(), "handler_faults", "a handler"):
        raise KeyboardInterrupt
