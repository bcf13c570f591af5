"""The outbox and inbox tables: what one process writes, the next one finds, until it expires."""

from __future__ import annotations

from contextlib import closing

import pytest

from bacalhau_p2p.bprotocol.codec import Envelope, MessageID
from bacalhau_p2p.bprotocol.delivery import REMEMBERED, OutboxMessage, ProcessedMessage
from bacalhau_p2p.bprotocol.messages import BidAccepted
from bacalhau_p2p.bprotocol.processed_ids import REMEMBERED_IDS
from bacalhau_p2p.components.outbox import SCHEMA, load_messages, write_messages
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.runtime.database import open_database, transaction

BOB = PeerID("bob")
NOW = 1000.0


def message(number, give_up_at=NOW + 10):
    envelope = Envelope(
        id=MessageID(bytes([number]) * 16), message=BidAccepted(job_id="j", execution_id="e"), to=BOB
    )
    return OutboxMessage(BOB, envelope, give_up_at)


def processed(number, since=NOW):
    return ProcessedMessage(BOB, MessageID(bytes([number]) * 16), since)


@pytest.fixture
def db(tmp_path):
    with closing(open_database(tmp_path / "x.db", [SCHEMA])) as db:
        yield db


def write(db, outbox=(), processed=(), delivered=()):
    with transaction(db):
        write_messages(db, outbox=outbox, processed=processed, delivered=delivered)


def test_messages_are_read_back_as_they_were_written(db):
    write(db, [message(1)], [processed(2)])
    outbox, inbox = load_messages(db, NOW)
    assert [(m.to, m.envelope, m.give_up_at) for m in outbox] == [(BOB, message(1).envelope, NOW + 10)]
    assert inbox == [processed(2)]


def test_a_delivered_message_leaves_the_outbox(db):
    write(db, [message(1), message(2)])
    write(db, delivered=[message(1).envelope.id])
    outbox, _ = load_messages(db, NOW)
    assert [m.envelope.id for m in outbox] == [message(2).envelope.id]


def test_expired_messages_are_deleted(db):
    write(db, [message(1, give_up_at=NOW), message(2)], [processed(3, NOW - REMEMBERED), processed(4)])
    outbox, inbox = load_messages(db, NOW)
    assert ([m.envelope.id for m in outbox], inbox) == ([message(2).envelope.id], [processed(4)])
    assert load_messages(db, 0.0) == load_messages(db, NOW)


def test_nothing_is_written_when_the_transaction_fails(db):
    def fail_half_way():
        with transaction(db):
            write_messages(db, outbox=[message(1)], processed=[processed(2)], delivered=())
            raise KeyError

    with pytest.raises(KeyError):
        fail_half_way()
    assert load_messages(db, NOW) == ([], [])


def test_the_inbox_keeps_the_latest_messages_only(db):
    many = [ProcessedMessage(BOB, MessageID(number.to_bytes(16)), NOW) for number in range(REMEMBERED_IDS)]
    write(db, processed=many)
    write(db, processed=[processed(255)])
    _, inbox = load_messages(db, NOW)
    assert inbox == [*many[1:], processed(255)]


def test_the_outbox_says_which_execution_a_message_is_about(db):
    write(db, [message(1)])
    assert db.execute("SELECT execution FROM outbox").fetchall() == [("e",)]
