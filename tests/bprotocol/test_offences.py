"""Peers that send what is dropped are counted within bounds, and named now and then."""

from __future__ import annotations

import logging

from bacalhau_p2p.bprotocol.offences import LINES_AT_ONCE, MAX_OFFENDERS, MAX_SHOWN, Offences


def test_the_worst_are_named_first():
    offences = Offences()
    for number in range(20):
        for _ in range(number + 1):
            offences.note(f"peer-{number}", "malformed", "", now=0)
    offences.note("peer-19", "over_rate", "", now=0)
    worst = offences.worst()
    assert list(worst) == [f"peer-{number}" for number in range(19, 19 - MAX_SHOWN, -1)]
    assert worst["peer-19"] == {"malformed": 20, "over_rate": 1}


def test_invented_peers_take_no_memory_and_hide_nobody():
    offences = Offences()
    for _ in range(5):
        offences.note("mallory", "malformed", "", now=0)
    for number in range(5 * MAX_OFFENDERS):
        offences.note(f"invented-{number}", "malformed", "", now=0)
    assert len(offences._by_peer) <= MAX_OFFENDERS
    assert next(iter(offences.worst())) == "mallory"


def test_the_log_names_a_peer_ever_less_often(caplog):
    caplog.set_level(logging.WARNING)
    offences = Offences()
    for _ in range(1000):
        offences.note("mallory", "malformed", "not plain CBOR", now=0)
    assert [record.getMessage().count("mallory") for record in caplog.records] == [1, 1, 1]


def test_many_peers_do_not_fill_the_log(caplog):
    caplog.set_level(logging.WARNING)
    offences = Offences()
    for number in range(100):
        for _ in range(10):
            offences.note(f"peer-{number}", "malformed", "", now=0)
    assert len(caplog.records) == LINES_AT_ONCE
