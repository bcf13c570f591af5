"""The durable side of delivery: the messages that a component sends and has dealt with, beside its records.

Both live in the component's own database, so that they commit with the records that they belong to: a
message is sent only if the change that caused it is kept, and kept only with the message (a transactional
outbox); and a repeat of a message that was dealt with is recognised after a crash.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing

from bacalhau_p2p.bprotocol.codec import MessageID, decode_frame
from bacalhau_p2p.bprotocol.delivery import REMEMBERED, OutboxMessage, ProcessedMessage
from bacalhau_p2p.model.base import PeerID, UnixSeconds
from bacalhau_p2p.runtime.database import transaction, write_rows

SCHEMA = """
CREATE TABLE outbox (
    id BLOB PRIMARY KEY, recipient TEXT NOT NULL, give_up_at REAL NOT NULL, frame BLOB NOT NULL
) STRICT;
CREATE TABLE inbox (
    author TEXT NOT NULL, id BLOB NOT NULL, since REAL NOT NULL, PRIMARY KEY (author, id)
) STRICT, WITHOUT ROWID;
"""


def keep_mail(
    db: sqlite3.Connection,
    *,
    posted: Iterable[OutboxMessage],
    settled: Iterable[ProcessedMessage],
    finished: Iterable[MessageID],
) -> None:
    """Within the transaction of `db` that is open now: add, remember, and forget what has arrived."""
    write_rows(
        db,
        "INSERT OR REPLACE INTO outbox (id, recipient, give_up_at, frame) VALUES (?, ?, ?, ?)",
        [(p.envelope.id, p.to, p.give_up_at, p.frame) for p in posted],
    )
    write_rows(
        db,
        "INSERT OR REPLACE INTO inbox (author, id, since) VALUES (?, ?, ?)",
        [(s.author, s.id, s.since) for s in settled],
    )
    write_rows(db, "DELETE FROM outbox WHERE id = ?", [(message_id,) for message_id in finished])


def load_mail(db: sqlite3.Connection, now: UnixSeconds) -> tuple[list[OutboxMessage], list[ProcessedMessage]]:
    """What an earlier life left, without what is past its time: that is forgotten for good."""
    with transaction(db):
        db.execute("DELETE FROM outbox WHERE give_up_at <= ?", (now,))
        db.execute("DELETE FROM inbox WHERE since <= ?", (now - REMEMBERED,))
    posted: list[OutboxMessage] = []
    with closing(db.execute("SELECT recipient, give_up_at, frame FROM outbox ORDER BY give_up_at")) as rows:
        for recipient, give_up_at, frame in rows:
            if (envelope := decode_frame(frame)) is not None:
                posted.append(OutboxMessage(PeerID(recipient), envelope, give_up_at))
    with closing(db.execute("SELECT author, id, since FROM inbox ORDER BY since")) as rows:
        settled = [ProcessedMessage(PeerID(author), MessageID(raw), since) for author, raw, since in rows]
    return posted, settled
