"""`neighbours.json`: what is written is read back, and a fault of the file never stops the node."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.node.neighbours import Neighbour
from bacalhau_p2p.node.neighbours_file import NeighboursFile

ENTRY = Neighbour(id=PeerID("peer"), addresses=("/ip4/192.0.2.1/tcp/1/p2p/peer",), seen=7.5, met=True)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "neighbours.json"


def test_written_entries_are_read_back_and_private(path):
    NeighboursFile(path).write([ENTRY])
    assert path.stat().st_mode & 0o777 == 0o600
    assert NeighboursFile(path).read() == [ENTRY]


def test_the_format_of_the_file_stays(path):
    NeighboursFile(path).write([ENTRY])
    assert json.loads(path.read_text()) == [
        {"id": "peer", "addresses": ["/ip4/192.0.2.1/tcp/1/p2p/peer"], "seen": 7.5, "met": True}
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[{",
        b"\xff\xfe",
        b'{"id": "x"}',
        b'[{"id": 7, "addresses": [], "seen": 0}]',
        b'[{"id": "x", "addresses": [], "seen": NaN}]',
        b"[" * 100_000,
        b" " * 3_000_000,
    ],
    ids=["empty", "cut", "no text", "no list", "types", "nan", "deep", "large"],
)
def test_a_damaged_file_is_logged_and_replaced(path, content, caplog):
    path.write_bytes(content)
    file = NeighboursFile(path)
    assert file.read() == []
    assert "neighbours_file_damaged" in caplog.text
    file.write([ENTRY])
    assert file.read() == [ENTRY]


def test_a_missing_file_is_logged(path, caplog):
    with caplog.at_level(logging.INFO, logger="bacalhau_p2p"):
        assert NeighboursFile(path).read() == []
    assert "neighbours_file_missing" in caplog.text


def test_a_file_that_cannot_be_read_or_written_or_deleted_is_logged(path, caplog):
    path.mkdir()
    file = NeighboursFile(path)
    assert file.read() == []
    assert "neighbours_file_unreadable" in caplog.text
    file.write([ENTRY])
    assert "neighbours_not_written" in caplog.text
    file.delete()
    assert "neighbours_not_deleted" in caplog.text


def test_a_deleted_file_is_gone_and_deleting_again_is_no_error(path, caplog):
    file = NeighboursFile(path)
    file.write([ENTRY])
    file.delete()
    file.delete()
    assert list(path.parent.iterdir()) == []
    assert caplog.text == ""
