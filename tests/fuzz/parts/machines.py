"""Both machines with their real stores: any message in any state, and a restart after what was accepted."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from cbor2 import dumps, loads

from bacalhau_p2p.bprotocol import codec
from bacalhau_p2p.bprotocol.codec import Envelope, MessageID
from bacalhau_p2p.bprotocol.delivery import OutboxMessage
from bacalhau_p2p.bprotocol.messages import (
    TO_COMPUTE,
    TO_REQUESTER,
    JobAnnounced,
    JobOutlined,
    Message,
    NodeInfoPublished,
)
from bacalhau_p2p.bprotocol.outlines import with_spec
from bacalhau_p2p.components.commit_plan import Commit, CommitPlanner, Handled, QueuedEvent
from bacalhau_p2p.components.protocol import Broadcast, Send
from bacalhau_p2p.components.store import ComponentStore
from bacalhau_p2p.compute import events as cv
from bacalhau_p2p.compute.bidding import Assessment, Findings
from bacalhau_p2p.compute.store import ComputeStore
from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.model.api_json import execution_to_json, job_to_json
from bacalhau_p2p.model.base import ExecutionID, PeerID, UnixSeconds
from bacalhau_p2p.requester import events as rv
from bacalhau_p2p.requester.store import RequesterStore
from tests.fuzz.mutation import mutated
from tests.fuzz.parts.messages import example_frames
from tests.support.machines.compute_bench import ALICE, FIRST, SMALL, ComputeBench
from tests.support.machines.machine_bench import MachineBench
from tests.support.machines.requester_bench import JOB, A, B, RequesterBench, execution_id, job
from tests.support.results import result_cid

_OF_THE_SCHEMA = {"name", "dictionary"}
"""Tables that have something in an empty store, too."""


class _Fuzzed:
    """A bench whose machine keeps what it must in a store."""

    def __init__(self) -> None:
        memory = Path("/dev/shm")  # many small commits
        self._folder = TemporaryDirectory(prefix="fuzz-", dir=memory if memory.is_dir() else None)
        self._values: list[Any] = [loads(frame) for frame in example_frames()]
        self._path = Path(self._folder.name) / "component.db"
        self._store: ComponentStore

    def close(self) -> None:
        self._store.close()
        self._folder.cleanup()

    def _empty_store(self) -> None:
        for (table,) in self._store.db.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table'"
        ).fetchall():
            if table not in _OF_THE_SCHEMA:
                self._store.db.execute(f"DELETE FROM {table}")

    def _message(self, kinds: Iterable[type[Message]], ids: list[str], rng: Random) -> Message | None:
        """A message of one of these kinds, mutated, most often about the job that is there."""
        names = {kind.kind for kind in kinds}
        value = dict(rng.choice([each for each in self._values if each["kind"] in names]))
        if rng.random() < 0.9:
            value = _about(value, ids, rng)
        try:
            return codec.decode_frame(dumps(mutated(value, rng, rng.choice((0, 0, 1, 1, 2))))).message
        except RemoteProtocolError:
            return None


def _about(value: Any, ids: list[str], rng: Random) -> Any:
    """The same value about the job and one of these executions, at any depth."""
    if isinstance(value, dict):
        changed = {key: _about(each, ids, rng) for key, each in value.items()}
        for key in changed:
            if key in ("job", "job_id") and isinstance(changed[key], str):
                changed[key] = JOB
            elif key in ("execution", "execution_id"):
                changed[key] = rng.choice(ids)
        return changed
    return [_about(each, ids, rng) for each in value] if isinstance(value, list | tuple) else value


def _commit(bench: MachineBench, store: ComponentStore, event: Any, actions: list[Any]) -> None:
    """Store what the machine asked for, and encode what it sends."""
    ids = itertools.count()

    def compose(to: PeerID, message: Message, give_up_at: UnixSeconds) -> OutboxMessage:
        number = next(ids).to_bytes(16)
        return OutboxMessage(to, Envelope(id=MessageID(number), message=message, to=to), give_up_at)

    planner = CommitPlanner(compose)
    steps = planner.plan([Handled(QueuedEvent(event), actions)], bench.now) + planner.flush(bench.now)
    for step in steps:
        if isinstance(step, Commit):
            store.commit(step, ())
    for action in actions:
        if isinstance(action, Send | Broadcast):
            codec.encode_frame(Envelope(id=MessageID(bytes(16)), message=action.message))


class Requester(_Fuzzed):
    def __init__(self) -> None:
        super().__init__()
        self._store = self._jobs = RequesterStore(self._path, power_safe=False)

    def run(self, rng: Random) -> bool:
        self._empty_store()
        return self._run(self._jobs, rng)

    def _run(self, store: RequesterStore, rng: Random) -> bool:
        bench, accepted = RequesterBench(), False
        ids = [execution_id(A), execution_id(B), ExecutionID("e-new"), ExecutionID("e-other")]
        self._handle(bench, store, rv.Submitted(JOB, job(rng.choice((1, 2)))))
        steps = [
            lambda: bench.add_nodes(A, B),
            lambda: bench.bid(A),
            lambda: bench.wait(1),
            lambda: bench.propose(A),
            lambda: bench.judge(accepted=[A]),
            lambda: bench.publish(A),
        ]
        for step in steps[: rng.randrange(len(steps) + 1)]:
            before = len(bench.done)
            step()
            _commit(bench, store, None, bench.done[before:])
        for _ in range(rng.choice((1, 2, 3))):
            message = self._message((*TO_REQUESTER, NodeInfoPublished), ids, rng)
            if message is None:
                continue
            accepted = True
            author = rng.choice((A, A, B, PeerID("stranger")))
            if isinstance(message, NodeInfoPublished):
                self._handle(bench, store, rv.NodeInfoReceived(message.info))
            else:
                self._handle(bench, store, rv.MessageReceived(author, message))
            before = len(bench.done)
            bench.wait(rng.choice((0.0, 0.4, 3.0, 60.0)))
            _commit(bench, store, None, bench.done[before:])
        again = RequesterBench()
        again.now = bench.now
        for unfinished in store.unfinished():
            job_to_json(unfinished)
            executions = store.executions(unfinished.id)
            for execution in executions:
                json.dumps(execution_to_json(execution), allow_nan=False)
            again.handle(rv.Resumed(unfinished, tuple(executions), store.told(unfinished.id)))
        again.wait(4000)
        assert store.db.execute("SELECT count(*) FROM quarantine").fetchone() == (0,)
        return accepted

    def _handle(self, bench: RequesterBench, store: RequesterStore, event: Any) -> None:
        _commit(bench, store, event, bench.handle(event))


class ComputeNode(_Fuzzed):
    def __init__(self) -> None:
        super().__init__()
        self._store = self._executions = ComputeStore(self._path, power_safe=False)

    def run(self, rng: Random) -> bool:
        self._empty_store()
        return self._run(self._executions, rng)

    def _run(self, store: ComputeStore, rng: Random) -> bool:
        bench, accepted = ComputeBench(), False
        ids = [FIRST, ExecutionID("e-2"), ExecutionID("e-other")]
        result = result_cid("right")
        steps: list[Any] = [
            self._announcement(rng),
            self._message((next(k for k in TO_COMPUTE if k.kind == "bid_accepted"),), [FIRST], rng),
            cv.Prepared(FIRST),
            cv.RunFinished(FIRST, result, b"sealed"),
        ]
        for step in steps[: rng.randrange(len(steps) + 1)]:
            if step is None:
                continue
            self._handle(bench, store, cv.MessageReceived(ALICE, step) if isinstance(step, Message) else step)
        for _ in range(rng.choice((1, 2, 3))):
            message = self._message(TO_COMPUTE, ids, rng)
            if message is None:
                continue
            accepted = True
            author = rng.choice((ALICE, ALICE, PeerID("stranger")))
            event: Any = cv.MessageReceived(author, message)
            if isinstance(message, JobAnnounced):
                inspected = bool(message.spec.task.input_sources)
                event = cv.AnnouncementReceived(author, message, Assessment(needs_inspection=inspected))
            if isinstance(message, JobOutlined):
                self._handle(bench, store, cv.OutlineReceived(author, message, Assessment()))
                event = cv.SpecReceived(author, with_spec(message, SMALL), Assessment())
            self._handle(bench, store, event)
            if isinstance(message, JobAnnounced):
                self._handle(bench, store, cv.Inspected(author, message.job_id, Findings()))
            before = len(bench.done)
            bench.wait(rng.choice((0.0, 1.0, 40.0, 2000.0)))
            _commit(bench, store, None, bench.done[before:])
        again = ComputeBench()
        again.now = bench.now
        for execution in store.active():
            again.handle(cv.Resumed(execution))
        for ended in [store.ended(each) for each in ids]:
            if ended is not None:
                again.handle(cv.Recalled(ended))
        again.wait(4000)
        assert store.db.execute("SELECT count(*) FROM quarantine").fetchone() == (0,)
        return accepted

    def _announcement(self, rng: Random) -> Any:
        message = self._message((JobAnnounced,), [FIRST], rng)
        return None if message is None else cv.AnnouncementReceived(ALICE, message, Assessment())

    def _handle(self, bench: ComputeBench, store: ComputeStore, event: Any) -> None:
        _commit(bench, store, event, bench.handle(event))
