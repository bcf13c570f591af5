"""The driver carries out plans on a real messenger, and ends when its store fails."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from bacalhau_p2p.bprotocol.codec import MessageID
from bacalhau_p2p.bprotocol.delivery import Recognition
from bacalhau_p2p.bprotocol.inbox import Arrival
from bacalhau_p2p.bprotocol.messages import ResultAccepted
from bacalhau_p2p.bprotocol.messenger import Messenger
from bacalhau_p2p.components.driver import PRUNE_INTERVAL, STORE_PATIENCE, STORE_RETRY, Driver
from bacalhau_p2p.components.protocol import COMMIT_DELAY, MessageReceived, NotStored, Store, TimePassed
from bacalhau_p2p.components.transitions import InvalidTransition
from bacalhau_p2p.errors import EventDropped, StoreFailed
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
        self.unknown = 0

    def handle(self, event, now):
        self.seen.append(event)
        if isinstance(event, TimePassed):
            self.deadline = None
        answer = self.answers.get(event if isinstance(event, str) else type(event), ())
        if isinstance(answer, Exception):
            raise answer
        return answer

    def take_faults(self):
        return [("job j", KeyError("late"))] if self.deadline is None else []

    def state_of(self, event):
        return "Running"

    def next_deadline(self):
        return self.deadline


class Commits:
    """A store that remembers its commits. It takes no records when it is full, and never those of the ids
    that it refuses."""

    def __init__(self, *, full=False, refused=()):
        self.full = full
        self.refused = refused
        self.commits = []
        self.delivered = []

    def commit(self, commit, delivered):
        self.rehearse(commit)
        self.commits.append(commit)
        self.delivered.append(list(delivered))

    def rehearse(self, commit):
        if self.full and commit.records:
            raise StoreFailed("full")
        if any(record.id in self.refused for record in commit.records):
            raise OverflowError("too large to convert")

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


async def test_a_message_whose_effect_cannot_be_committed_does_not_count_as_processed(autojump_clock):
    store = Commits(full=True)
    async with driver(Scripted({MessageReceived: [Store(JOB), "step"]}), store) as driven:
        driven._receive(MESSAGE)
        began = trio.current_time()
        with pytest.raises(BaseExceptionGroup) as caught:
            async with driving(driven):
                await trio.sleep_forever()
        assert caught.value.subgroup(StoreFailed)
        assert (driven.order, store.commits) == ([], [])
        assert trio.current_time() - began == pytest.approx(STORE_PATIENCE, abs=2 * STORE_RETRY)


async def test_a_disk_that_is_full_for_a_moment_delays_a_commit_and_loses_nothing(autojump_clock):
    store = Commits(full=True)
    async with driver(Scripted({"go": [Store(JOB), "step"]}), store) as driven, driving(driven):
        with trio.move_on_after(STORE_PATIENCE / 2):
            await driven._enqueue_and_confirm("go")
        driven._enqueue("later")
        assert (driven.order, store.commits) == ([], [])
        store.full = False
        await trio.sleep(2 * STORE_RETRY)
        assert driven.order == ["commit", "step"]
        assert [commit.records for commit in store.commits] == [(JOB,)]
        assert driven._machine.seen == ["go", "later"]


async def test_what_leaves_the_outbox_waits_for_a_commit_that_succeeds(autojump_clock, monkeypatch):
    store = Commits(full=True)
    async with driver(Scripted({"go": [Store(JOB)]}), store) as driven, driving(driven):
        finished = [[MESSAGE.id]]
        monkeypatch.setattr(
            driven._messenger, "take_finished", lambda owner: finished.pop() if finished else []
        )
        driven._enqueue("go")
        await trio.sleep(STORE_PATIENCE / 2)
        store.full = False
        await trio.sleep(2 * STORE_RETRY + COMMIT_DELAY)
        assert store.delivered == [[MESSAGE.id]]


# --- what raises ------------------------------------------------------------------------------


BUG = InvalidTransition("e", "Running", "event")


async def test_an_event_that_raises_is_dropped_and_the_node_goes_on(autojump_clock, caplog):
    machine, store = Scripted({MessageReceived: BUG, "go": [Store(JOB)]}), Commits()
    async with driver(machine, store) as driven, driving(driven):
        driven._receive(MESSAGE)
        await driven._enqueue_and_confirm("go")
        (commit,) = store.commits
        assert commit.processed == ()
        known = driven._messenger._delivery.recognise(OTHER, MESSAGE.id)
        assert known is Recognition.PROCESSED, "it is acknowledged, so that it does not come again"
        assert commit.records == (JOB,)
        assert driven.dropped == {("ResultAccepted", OTHER): 1}
    (line,) = [record.getMessage() for record in caplog.records if "event_dropped" in record.getMessage()]
    assert "author='other'" in line
    assert "state='Running'" in line
    assert "InvalidTransition" in line


async def test_whoever_waits_for_an_event_that_raises_learns_why():
    async with driver(Scripted({"go": ValueError("no such thing")}), Commits()) as driven, driving(driven):
        with pytest.raises(EventDropped, match="ValueError: no such thing"):
            await driven._enqueue_and_confirm("go")


async def test_a_deadline_that_raises_is_counted(autojump_clock):
    machine = Scripted({TimePassed: ()}, deadline=trio.current_time() + 1.0)
    async with driver(machine, Commits()) as driven, driving(driven):
        await trio.sleep(2)
        assert driven.dropped == {("TimePassed", ""): 1}


async def test_a_message_that_cannot_be_made_an_event_is_dropped():
    async with driver(Scripted({"go": ()}), Commits()) as driven, driving(driven):
        driven._event_of = lambda arrival: {}["missing"]
        driven._receive(MESSAGE)
        await driven._enqueue_and_confirm("go")
        assert sum(driven.dropped.values()) == 1


async def test_an_action_that_raises_is_skipped():
    async with driver(Scripted({"go": ["bad", "good"]}), Commits()) as driven, driving(driven):
        perform = driven._perform

        def failing(action, nursery):
            if action == "bad":
                raise UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")
            perform(action, nursery)

        driven._perform = failing
        await driven._enqueue_and_confirm("go")
        await trio.testing.wait_all_tasks_blocked()
        assert driven.order == ["commit", "good"]


async def test_a_record_that_cannot_be_stored_is_left_out_and_its_machine_learns_it():
    poisoned = JOB.replace(id=JobID("bad"))
    machine, store = Scripted({"go": [Store(JOB), Store(poisoned)]}), Commits(refused=["bad"])
    async with driver(machine, store) as driven, driving(driven):
        await driven._enqueue_and_confirm("go")
        await trio.testing.wait_all_tasks_blocked()
        assert [commit.records for commit in store.commits] == [(JOB,)]
        (failed,) = [event for event in machine.seen if isinstance(event, NotStored)]
        assert (failed.record, "too large to convert" in failed.reason) == (poisoned, True)


async def test_whoever_waits_for_a_job_that_cannot_be_stored_learns_why():
    class Submitted:
        job_id = "j"

    machine, store = Scripted({Submitted: [Store(JOB)]}), Commits(refused=["j"])
    async with driver(machine, store) as driven, driving(driven):
        with pytest.raises(EventDropped, match="too large to convert"):
            await driven._enqueue_and_confirm(Submitted())


async def test_the_store_is_pruned_now_and_then_and_a_fault_in_that_ends_nothing(autojump_clock):
    store, pruned = Commits(), []

    def prune(now):
        pruned.append(now)
        raise OSError("disk on fire")

    store.prune = prune
    async with driver(Scripted({}), store) as driven, driving(driven):
        await trio.sleep(2.5 * PRUNE_INTERVAL)
    assert len(pruned) == 2


async def test_a_deletion_goes_on_in_small_steps_until_nothing_is_left(autojump_clock):
    store, steps = Commits(), [True, True, False]
    store.prune = lambda now: steps.pop(0)
    async with driver(Scripted({}), store) as driven, driving(driven):
        await trio.sleep(1.5 * PRUNE_INTERVAL)
    assert steps == []


async def test_watchers_see_every_version_of_a_record_and_a_fault_of_theirs_ends_nothing(autojump_clock):
    changed = JOB.replace(message="later")
    store = Commits()
    async with driver(Scripted({"go": [Store(JOB), Store(changed)]}), store) as driven, driving(driven):
        seen = []
        driven.watch_records(lambda record: [][0])
        driven.watch_records(seen.append)
        await driven._enqueue_and_confirm("go")
        assert seen == [JOB, changed]
        assert [commit.records for commit in store.commits] == [(changed,)]
