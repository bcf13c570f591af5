"""Full stores: a commit is kept as a whole or not at all, and what failed is not taken for done."""

from __future__ import annotations

from contextlib import closing

import pytest
import trio

from bacalhau_p2p.bprotocol.codec import MessageID
from bacalhau_p2p.bprotocol.inbox import Arrival
from bacalhau_p2p.bprotocol.messages import ResultAccepted
from bacalhau_p2p.bprotocol.messenger import Messenger
from bacalhau_p2p.components.driver import Driver
from bacalhau_p2p.components.protocol import Store
from bacalhau_p2p.errors import StoreFailed
from bacalhau_p2p.model.base import JobID, PeerID
from bacalhau_p2p.model.execution import Job
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.model.state import JobState
from bacalhau_p2p.runtime.database import open_database, transaction
from bacalhau_p2p.transports.memory.network import MemoryNetwork

JOB = {"Tasks": [{"Engine": {"Type": "noop"}}]}
SELF = PeerID("self")


def allow(db, more):
    """Let the database grow by so many pages of 4 KiB only, as on a disk with so much room."""
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count={pages + more}")


def test_what_does_not_fit_is_not_kept_and_the_store_goes_on_when_there_is_room(tmp_path):
    with closing(open_database(tmp_path / "x.db", ["CREATE TABLE kept (what BLOB)"])) as db:
        allow(db, 10)
        with pytest.raises(StoreFailed, match=r"x\.db cannot be written: database or disk is full"):
            put(db, b"small", b"large" * 20_000)
        put(db, b"later")
        allow(db, 100)
        put(db, b"large" * 20_000)
        assert db.execute("SELECT what FROM kept").fetchall() == [(b"later",), (b"large" * 20_000,)]


def put(db, *values):
    with transaction(db):
        for value in values:
            db.execute("INSERT INTO kept VALUES (?)", (value,))


class Careful(Driver):
    """Drives a machine that keeps a record and begins a step, on a store that takes no records any more."""

    def __init__(self, messenger):
        super().__init__(self, messenger, clock=trio.current_time)
        self.kept = []

    def handle(self, event, now):
        spec, times = job_from_mapping(JOB), {"created": now, "modified": now}
        job = Job(id=JobID("j"), spec=spec, state=JobState.RUNNING, requester_id=SELF, **times)
        return [Store(job), "begin"]

    def next_deadline(self):
        return None

    def _commit(self, unkept, finished, now, *, power_safe):
        if unkept.records:
            raise StoreFailed("full")
        self.kept += unkept.settled(now)

    def _perform(self, action, nursery):
        raise AssertionError("a step was begun that rests on nothing")

    def _was_kept(self, unkept):
        pass


async def test_a_message_whose_effect_could_not_be_kept_is_not_taken_for_dealt_with():
    async with MemoryNetwork().open(SELF) as transport:
        messenger = Messenger(
            transport,
            network="main",
            clock=trio.current_time,
            rng=lambda: 0.5,
            new_message_id=lambda: MessageID(bytes(16)),
        )
        driver = Careful(messenger)
        accepted = ResultAccepted(job_id="j", execution_id="e")
        driver._hear(Arrival(PeerID("other"), accepted, MessageID(b"m" * 16)))
        with pytest.raises(BaseExceptionGroup) as caught:
            async with trio.open_nursery() as nursery:
                await driver._drive(nursery)
        assert caught.value.subgroup(StoreFailed)
        assert driver.kept == []
