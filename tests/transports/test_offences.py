"""Peers that send what is dropped are counted within bounds, and named once a minute."""

from __future__ import annotations

import logging

import pytest

from bacalhau_p2p.transports.offences import FEWEST_LOGGED, MAX_OFFENDERS, MAX_SHOWN, Offences


@pytest.fixture
def offences():
    return Offences()


def lines(caplog) -> list[str]:
    taken = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return taken


def test_the_worst_are_named_first(offences):
    for number in range(20):
        offences.note(f"peer-{number}", "malformed", "", count=number + 1)
    offences.note("peer-19", "messages", "")
    worst = offences.worst()
    assert list(worst) == [f"peer-{number}" for number in range(19, 19 - MAX_SHOWN, -1)]
    assert worst["peer-19"] == offences.of("peer-19") == {"malformed": 20, "messages": 1}
    assert offences.of("nobody") == {}


def test_invented_peers_take_no_memory_and_hide_nobody(offences):
    offences.note("mallory", "malformed", "", count=5)
    for number in range(5 * MAX_OFFENDERS):
        offences.note(f"invented-{number}", "malformed", "")
    assert len(offences._by_peer) == len(offences._reasons) <= MAX_OFFENDERS
    assert next(iter(offences.worst())) == "mallory"


def test_a_report_names_who_offended_since_the_last_one(offences, caplog):
    caplog.set_level(logging.WARNING)
    offences.note("mallory", "malformed", "not plain CBOR", count=1000)
    offences.note("alice", "malformed", "not plain CBOR", count=FEWEST_LOGGED - 1)
    assert lines(caplog) == []
    offences.report()
    (line,) = lines(caplog)
    assert "mallory" in line
    assert "malformed=1000" in line
    offences.note("mallory", "malformed", "not plain CBOR")
    offences.report()
    assert lines(caplog) == []


def test_many_peers_do_not_fill_the_log(offences, caplog):
    caplog.set_level(logging.WARNING)
    for number in range(100):
        offences.note(f"peer-{number}", "malformed", "", count=FEWEST_LOGGED + number)
    offences.report()
    named = lines(caplog)
    assert len(named) == MAX_SHOWN + 1
    assert "peer-99" in named[0]
    assert "peers=90" in named[-1]
