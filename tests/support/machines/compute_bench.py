"""A compute node's machine with a clock, and the requester that sends messages to it."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.compute import events as ev
from bacalhau_p2p.compute.bidding import Assessment
from bacalhau_p2p.compute.capacity import Capacity
from bacalhau_p2p.compute.machine import ComputeMachine, Environment
from bacalhau_p2p.compute.presence import GONE_AFTER
from bacalhau_p2p.compute.shares import DEFAULT_RULES, ShareRules
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.model.resources import Resources
from bacalhau_p2p.model.state import ComputeState
from tests.support.machines.machine_bench import FixedRandom, MachineBench

ALICE, JOB = PeerID("alice"), JobID("j-1")
FIRST = ExecutionID("e-1")


def small_job(*, cpu: str = "0.5", task: Mapping[str, object] | None = None, **extra: object) -> JobSpec:
    """A noop job of one task; `task` and `extra` are put into both as users write them."""
    parts = {"Engine": {"Type": "noop"}, "Resources": {"CPU": cpu}, **(task or {})}
    return job_from_mapping({"Tasks": [parts], **extra})


def large_job(size: int, *, cpu: str = "0.5", **extra: object) -> JobSpec:
    """A job whose variables have so many characters."""
    lengths = [min(100_000, size - start) for start in range(0, size, 100_000)]
    variables = {f"D{number}": "x" * length for number, length in enumerate(lengths)}
    return small_job(cpu=cpu, task={"Env": variables}, **extra)


SMALL = small_job()


class ComputeBench(MachineBench):
    """A machine with room for two small jobs; executions are e-1, e-2, ... Alice has accepted bids."""

    def __init__(
        self,
        *,
        cpu: float = 1,
        disk: int = 2**40,
        rng: float = 0.5,
        rules: ShareRules = DEFAULT_RULES,
        gone_after: float = GONE_AFTER,
        known: Collection[PeerID] = (ALICE,),
    ) -> None:
        """`known`: the requesters that have accepted bids of this node."""
        room = Resources(cpu=cpu, memory=2**31, disk=disk)
        environment = Environment(
            execution_ids=(ExecutionID(f"e-{number}") for number in itertools.count(1)),
            rng=FixedRandom(rng),
            capacity=Capacity(room),
            share_rules=rules,
            requester_gone_after=gone_after,
        )
        super().__init__(ComputeMachine(environment))
        for requester in known:
            self.machine._ledger.unused_bids.accepted(requester)

    def receive(self, message: say.Message, author: PeerID = ALICE) -> list[ev.Action]:
        return self.handle(ev.MessageReceived(author, message))

    def announce(
        self,
        spec: JobSpec = SMALL,
        job_id: str = JOB,
        *,
        author: PeerID = ALICE,
        assessment: Assessment | None = None,
        **terms: object,
    ) -> list[ev.Action]:
        """Announce a job; unless an assessment is given, it is one that this node can run, and is inspected
        if it has inputs."""
        values = {"bids_wanted": 3, "round": 1, "deadline": 3600.0, "answers_wanted": True, **terms}
        message = say.JobAnnounced(job_id=JobID(job_id), spec=spec, **values)
        assessed = assessment or Assessment(needs_inspection=bool(spec.task.input_sources))
        return self.handle(ev.AnnouncementReceived(author, message, assessed))

    def state(self, execution_id: str = FIRST) -> ComputeState:
        return self.machine.executions[ExecutionID(execution_id)].state


def message_about(kind: type[say.Message], execution_id: str = FIRST, **fields: object) -> say.Message:
    """A message about an execution of the job."""
    return kind(job_id=JOB, execution_id=ExecutionID(execution_id), **fields)
