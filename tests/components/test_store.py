"""A component's store writes records and messages in one transaction, or nothing."""

from __future__ import annotations

from contextlib import closing

import pytest

from bacalhau_p2p.bprotocol.codec import Envelope, MessageID
from bacalhau_p2p.bprotocol.delivery import OutboxMessage, ProcessedMessage
from bacalhau_p2p.bprotocol.messages import BidAccepted
from bacalhau_p2p.components.commit_plan import Commit
from bacalhau_p2p.components.outbox import SCHEMA
from bacalhau_p2p.components.store import ComponentStore, Row
from bacalhau_p2p.errors import StoreFailed
from bacalhau_p2p.model.base import Model, PeerID

BOB = PeerID("bob")
SENT = OutboxMessage(
    BOB,
    Envelope(id=MessageID(b"m" * 16), message=BidAccepted(job_id="j", execution_id="e"), to=BOB),
    give_up_at=100.0,
)
RECEIVED = ProcessedMessage(BOB, MessageID(b"r" * 16), 1.0)
BOTH = Commit(records=("record",), outbox=(SENT,), processed=(RECEIVED,))


class Notes(ComponentStore):
    """Its records are texts."""

    def __init__(self, path, *, power_safe=True):
        tables = ["CREATE TABLE record (text TEXT)", SCHEMA]
        super().__init__(path, tables, power_safe=power_safe)

    def _write(self, commit):
        for record in commit.records:
            self.db.execute("INSERT INTO record VALUES (?)", (record,))

    @property
    def contents(self):
        records = [text for (text,) in self.db.execute("SELECT text FROM record")]
        outbox, inbox = self.load_messages(now=0.0)
        return records, [message.envelope.id for message in outbox], inbox


@pytest.fixture
def store(tmp_path):
    with closing(Notes(tmp_path / "x.db")) as store:
        yield store


def test_records_and_messages_are_written_together(store):
    store.commit(BOTH, delivered=())
    assert store.contents == (["record"], [SENT.envelope.id], [RECEIVED])


def test_a_delivered_message_is_removed_from_the_outbox(store):
    store.commit(BOTH, delivered=())
    store.commit(Commit(), delivered=[SENT.envelope.id])
    assert store.contents == (["record"], [], [RECEIVED])


def test_a_commit_that_does_not_fit_writes_nothing(store):
    (pages,) = store.db.execute("PRAGMA page_count").fetchone()
    store.db.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StoreFailed):
        store.commit(Commit(records=("x" * 100_000,), processed=(RECEIVED,)), delivered=())
    assert store.contents == ([], [], [])


@pytest.mark.parametrize(
    ("commit_is", "store_is", "level"), [(True, True, 2), (False, True, 1), (True, False, 1)]
)
def test_a_power_safe_commit_waits_for_the_disk_if_the_store_is_power_safe(
    tmp_path, commit_is, store_is, level
):
    with closing(Notes(tmp_path / "x.db", power_safe=store_is)) as store:
        store.commit(Commit(power_safe=commit_is), delivered=())
        assert store.db.execute("PRAGMA synchronous").fetchone() == (level,)


class Number(Model):
    """A record."""

    value: int


def test_a_record_that_cannot_be_read_is_set_aside_and_named_in_the_log(store, caplog):
    for text in ('{"Value": 7}', '{"Value": null}', "no json"):
        store.commit(Commit(records=(text,)), delivered=())
    texts = [text for (text,) in store.db.execute("SELECT text FROM record")]
    decode = Number.model_validate_json
    read = [store.read(decode, Row("record", {"text": text}, text.encode())) for text in texts]
    assert read == [Number(value=7), None, None]
    assert store.contents[0] == ['{"Value": 7}']
    rows = store.db.execute('SELECT "table", record FROM quarantine').fetchall()
    assert rows == [("record", b'{"Value": null}'), ("record", b"no json")]
    assert caplog.text.count("record_set_aside") == 2


def test_a_message_that_cannot_be_read_does_not_keep_a_node_from_starting(store):
    store.commit(BOTH, delivered=())
    store.db.execute("UPDATE outbox SET frame = x'ff00'")
    assert store.load_messages(now=0.0) == ([], [RECEIVED])
