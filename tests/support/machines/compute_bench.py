"""A compute node's machine on a bench, and the requester that speaks to it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.compute import events as ev
from bacalhau_p2p.compute.bidding import BidStrategy
from bacalhau_p2p.compute.capacity import Capacity
from bacalhau_p2p.compute.machine import ComputeMachine, Environment
from bacalhau_p2p.errors import Fault
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.job import JobSpec, SpecConfig
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.model.resources import Resources
from tests.support.machines.machine_bench import MachineBench

ALICE, JOB = PeerID("alice"), JobID("j-1")


def small_job(*, cpu: str = "0.5", task: Mapping[str, object] | None = None, **extra: object) -> JobSpec:
    """A noop job of one task; `task` and `extra` are put into both as users write them."""
    parts = {"Engine": {"Type": "noop"}, "Resources": {"CPU": cpu}, **(task or {})}
    return job_from_mapping({"Tasks": [parts], **extra})


SMALL = small_job()


class ComputeBench(MachineBench):
    """A machine with room for two small jobs; executions are e-1, e-2, ..."""

    def __init__(self, strategy: BidStrategy, *, disk: int = 2**40, rng: float = 0.5) -> None:
        ids = itertools.count(1)
        host = Environment(
            peer_id=PeerID("me"),
            new_execution_id=lambda: ExecutionID(f"e-{next(ids)}"),
            rng=lambda: rng,
        )
        room = Resources(cpu=1, memory=2**31, disk=disk)
        super().__init__(ComputeMachine(host, strategy, Capacity(room)))

    def hear(self, message: say.Message, author: PeerID = ALICE) -> list[ev.Action]:
        return self.give(ev.MessageReceived(author, message))

    def announce(self, spec: JobSpec = SMALL, job_id: str = JOB, **terms: object) -> list[ev.Action]:
        values = {"bids_wanted": 3, "round": 1, "deadline": 3600.0, "answers_wanted": True, **terms}
        return self.hear(say.JobAnnounced(job_id=JobID(job_id), spec=spec, **values))


def no_faults(config: SpecConfig) -> list[Fault]:
    """The check of an adapter that accepts whatever it is given."""
    return []
