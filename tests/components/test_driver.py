"""The driver carries out plans on a real messenger, and ends when its store fails."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from bacalhau_p2p.bprotocol.codec import MessageID
from bacalhau_p2p.bprotocol.inbox import Arrival
from bacalhau_p2p.bprotocol.messages import ResultAccepted
from bacalhau_p2p.bprotocol.messenger import Messenger
from bacalhau_p2p.components.driver import Driver
from bacalhau_p2p.components.protocol import COMMIT_DELAY, MessageReceived, Store, TimePassed
from bacalhau_p2p.errors import StoreFailed
from bacalhau_p2p.model.base import JobID, PeerID
from bacalhau_p2p.model.execution import Job
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.model.state import JobState
from bacalhau_p2p.transports.memory.network import MemoryNetwork

SELF, OTHER = PeerID("self"), PeerID("other")
SPEC = job_from_mapping({"Tasks": [{"Engine": {"Type": "noop"}}]})
JOB = Job(id=JobID("j"), spec=SPEC, state=JobState.RUNNING, requester_id=SELF, created=1.0, modified=1.0)
MESSAGE = Arrival(OTHER, ResultAccepted(job_id="j", execution_id="e"), MessageID(b"m" * 16))


class Scripted:
    """A machine that answers events by their type, or by what they are, and has one deadline."""

    def __init__(self, answers, deadline=None):
        self.answers, self.deadline = answers, deadline
        self.seen = []

    def handle(self, event, now):
        self.seen.append(event)
        if isinstance(event, TimePassed):
            self.deadline = None
        return self.answers.get(event if isinstance(event, str) else type(event), ())

    def next_deadline(self):
        return self.deadline


class Commits:
    """A store that remembers its commits, and takes no records when it is full."""

    def __init__(self, *, full=False):
        self.full = full
        self.commits = []

    def commit(self, commit, delivered):
        if self.full and commit.records:
            raise StoreFailed("full")
        self.commits.append(commit)

    def load_messages(self, now):
        return [], []


class Recorded(Driver):
    """Notes what happened in which order."""

    def __init__(self, machine, store, messenger):
        super().__init__(machine, store, messenger, clock=trio.current_time)
        self.order = []

    def _committed(self, commit):
        self.order.append("commit")

    def _perform(self, action, nursery):
        self.order.append(action)


@asynccontextmanager
async def driver(machine, store) -> AsyncIterator[Recorded]:
    async with MemoryNetwork().open(SELF) as transport:
        messenger = Messenger(
            transport,
            network="main",
            clock=trio.current_time,
            rng=lambda: 0.5,
            new_message_id=lambda: MessageID(bytes(16)),
        )
        yield Recorded(machine, store, messenger)


@asynccontextmanager
async def driving(driven):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driven._drive, nursery)
        yield
        nursery.cancel_scope.cancel()


async def test_a_step_begins_after_the_commit_that_it_rests_on():
    machine, store = Scripted({"go": [Store(JOB), "step"]}), Commits()
    async with driver(machine, store) as driven, driving(driven):
        await driven._enqueue_and_confirm("go")
        assert driven.order == ["commit", "step"]
        assert [commit.records for commit in store.commits] == [(JOB,)]


async def test_changes_that_nobody_waits_for_are_committed_after_a_moment(autojump_clock):
    store = Commits()
    async with driver(Scripted({MessageReceived: [Store(JOB)]}), store) as driven, driving(driven):
        driven._receive(MESSAGE)
        await trio.sleep(COMMIT_DELAY / 2)
        assert store.commits == []
        await trio.sleep(COMMIT_DELAY)
        (commit,) = store.commits
        assert ([processed.id for processed in commit.processed], commit.records) == ([MESSAGE.id], (JOB,))


async def test_what_was_handled_is_committed_when_the_driver_is_cancelled(autojump_clock):
    store = Commits()
    async with driver(Scripted({MessageReceived: [Store(JOB)]}), store) as driven:
        async with driving(driven):
            driven._receive(MESSAGE)
            await trio.sleep(COMMIT_DELAY / 2)
        assert [commit.records for commit in store.commits] == [(JOB,)]


async def test_the_machine_is_woken_at_its_deadline(autojump_clock):
    machine = Scripted({}, deadline=trio.current_time() + 5.0)
    async with driver(machine, Commits()) as driven, driving(driven):
        await trio.sleep(4.9)
        assert machine.seen == []
        await trio.sleep(0.2)
        assert machine.seen == [TimePassed()]


async def test_a_message_whose_effect_cannot_be_committed_does_not_count_as_processed():
    store = Commits(full=True)
    async with driver(Scripted({MessageReceived: [Store(JOB), "step"]}), store) as driven:
        driven._receive(MESSAGE)
        with pytest.raises(BaseExceptionGroup) as caught:
            async with driving(driven):
                await trio.sleep_forever()
        assert caught.value.subgroup(StoreFailed)
        assert (driven.order, store.commits) == ([], [])
