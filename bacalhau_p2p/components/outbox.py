"""The messages that a component sends and has processed, in the database of its records.

They commit together with the records (a transactional outbox): a message is sent only if the change that
caused it is committed, and committed only with the message. A repeat of a processed message is recognised
even after a crash, for as long as its id is remembered.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing

from bacalhau_p2p.bprotocol.codec import Envelope, MessageID, decode_frame
from bacalhau_p2p.bprotocol.delivery import REMEMBERED, OutboxMessage, ProcessedMessage
from bacalhau_p2p.bprotocol.processed_ids import REMEMBERED_IDS
from bacalhau_p2p.model.base import PeerID, UnixSeconds
from bacalhau_p2p.runtime.database import transaction, write_rows
from bacalhau_p2p.runtime.logs import get_logger

log = get_logger(__name__)

SCHEMA = """
CREATE TABLE outbox (
    id BLOB PRIMARY KEY, recipient TEXT NOT NULL, give_up_at REAL NOT NULL, frame BLOB NOT NULL,
    execution TEXT NOT NULL
) STRICT;
CREATE TABLE inbox (
    number INTEGER PRIMARY KEY, author TEXT NOT NULL, id BLOB NOT NULL, since REAL NOT NULL
) STRICT;
"""
"""The inbox is in the order of arrival, so that the oldest rows are deleted by their numbers. The outbox says
which execution a message is about."""

_DELETE_OLDEST = "DELETE FROM inbox WHERE number <= (SELECT max(number) FROM inbox) - ?"


def write_messages(
    db: sqlite3.Connection,
    *,
    outbox: Iterable[OutboxMessage],
    processed: Iterable[ProcessedMessage],
    delivered: Iterable[MessageID],
) -> None:
    """Within the open transaction of `db`: add to the outbox and the inbox, and remove what was delivered
    from the outbox."""
    write_rows(
        db,
        "INSERT OR REPLACE INTO outbox (id, recipient, give_up_at, frame, execution) VALUES (?, ?, ?, ?, ?)",
        [(m.envelope.id, m.to, m.give_up_at, m.frame, _execution_of(m)) for m in outbox],
    )
    rows = [(p.author, p.id, p.since) for p in processed]
    if rows:
        write_rows(db, "INSERT INTO inbox (author, id, since) VALUES (?, ?, ?)", rows)
        db.execute(_DELETE_OLDEST, (REMEMBERED_IDS,))
    write_rows(db, "DELETE FROM outbox WHERE id = ?", [(message_id,) for message_id in delivered])


def prune_messages(db: sqlite3.Connection, now: UnixSeconds) -> None:
    """Delete what has expired."""
    with transaction(db, power_safe=False):
        db.execute("DELETE FROM outbox WHERE give_up_at <= ?", (now,))
        db.execute("DELETE FROM inbox WHERE since <= ?", (now - REMEMBERED,))


def load_messages(
    db: sqlite3.Connection, now: UnixSeconds
) -> tuple[list[OutboxMessage], list[ProcessedMessage]]:
    """The outbox and the inbox. What has expired is deleted first."""
    prune_messages(db, now)
    outbox: list[OutboxMessage] = []
    with closing(db.execute("SELECT recipient, give_up_at, frame FROM outbox ORDER BY give_up_at")) as rows:
        for recipient, give_up_at, frame in rows:
            if (envelope := _decoded(frame)) is not None:
                outbox.append(OutboxMessage(PeerID(recipient), envelope, give_up_at))
    with closing(db.execute("SELECT author, id, since FROM inbox ORDER BY number")) as rows:
        processed = [ProcessedMessage(PeerID(author), MessageID(raw), since) for author, raw, since in rows]
    return outbox, processed


def _execution_of(message: OutboxMessage) -> str:
    return str(getattr(message.envelope.message, "execution_id", ""))


def _decoded(frame: bytes) -> Envelope | None:
    """None if an earlier version wrote what this one does not read."""
    try:
        return decode_frame(frame)
    except Exception as error:  # noqa: BLE001 - a node always starts
        log.error("outbox_message_dropped", reason=f"{type(error).__name__}: {error}"[:500])
        return None
