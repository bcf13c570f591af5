from __future__ import annotations

from contextlib import closing

import pytest

from bacalhau_p2p.ipfs.format.cid import CID, DAG_PB, RAW
from bacalhau_p2p.ipfs.store.pin_owners import ANNOUNCED, execution, published
from bacalhau_p2p.ipfs.store.pins import Pin, Pins

ROOT, OTHER = CID.of(DAG_PB, b"root"), CID.of(RAW, b"other")


@pytest.fixture
def pins(tmp_path):
    with closing(Pins(tmp_path / "pins.db")) as pins:
        yield pins


def test_pins_are_found_by_root_and_time(pins):
    pins.add(ROOT, "a", 100.0)
    pins.add(ROOT, "b", None)
    pins.add(OTHER, "a", 300.0)
    assert pins.find(ROOT, None) == [Pin(ROOT, "a", 100.0), Pin(ROOT, "b", None)]
    assert {(pin.cid, pin.owner) for pin in pins.find(None, 100.0)} == {(ROOT, "b"), (OTHER, "a")}


def test_both_versions_of_a_cid_have_the_same_pins(pins):
    pins.add(CID(ROOT.binary[2:]), "a", None)
    assert pins.find(ROOT, None) == [Pin(ROOT, "a", None)]
    assert pins.remove(ROOT, "a")


def test_expired_pins_are_removed(pins):
    for number in range(3):
        pins.add(ROOT, f"owner {number}", 100.0 + number)
    pins.remove_expired(101.0)
    assert [pin.owner for pin in pins.find(None, None)] == ["owner 2"]


def test_a_saved_number_is_taken_once(pins):
    assert pins.take_number("used") is None
    pins.save_number("used", 5)
    pins.save_number("used", 7)
    assert pins.take_number("used") == 7
    assert pins.take_number("used") is None


def test_a_root_is_listed_once_however_many_pins_it_has(pins):
    for number in range(5):
        pins.add(ROOT, published(f"e-{number}"), 100.0)
    pins.add(OTHER, "user", None)
    pins.add(CID.of(RAW, b"expired"), "user", 10.0)
    pins.add(CID.of(RAW, b"runs"), execution("e-9"), None)
    assert set(pins.roots(50.0, ANNOUNCED)) == {ROOT, OTHER}
    assert pins.roots(200.0, ANNOUNCED) == [OTHER]
    assert len(pins.roots(50.0)) == 3
