"""A requester whose jobs come one after the other, and nodes that run them, or do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import PublishedResult
from bacalhau_p2p.model.job import JobSpec, SpecConfig
from bacalhau_p2p.model.state import JobState
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.verifiers.interface import Verdict
from tests.support.machines.requester_bench import RequesterBench
from tests.support.results import plaintext_of, result_cid, results_folder

Behaviour = Literal["honest", "silent", "fails", "hands back", "away"]
"""What a node does when its bid was accepted; one that is away does not even bid."""


@dataclass(slots=True)
class Line:
    """Runs jobs one after the other. Nodes that do not run jobs claim to be idle and to have all inputs, and
    bid before the others."""

    nodes: Mapping[PeerID, Behaviour]
    bench: RequesterBench = field(default_factory=RequesterBench)
    accepted: Counter[PeerID] = field(default_factory=Counter)
    """How many bids of each node were accepted."""
    number: int = 0

    def __post_init__(self) -> None:
        self.bench.add_nodes(*self.nodes)
        for node in self.nodes:
            self.bench.handle(ev.NodeConnected(node))

    def run(self, spec: JobSpec) -> float:
        """Run a job until it has ended. Returns the seconds that it took."""
        bench, began = self.bench, self.bench.now
        self.number += 1
        job_id = JobID(f"j-{self.number}")
        waiting = list(bench.handle(ev.Submitted(job_id, spec)))
        entry = bench.machine.jobs[job_id]
        while not entry.job.state.terminal:
            while waiting and not entry.job.state.terminal:
                waiting += self._follow(waiting.pop(0))
            if not entry.job.state.terminal:
                waiting += bench.wait(0.01)
        return bench.now - began

    def state(self, number: int) -> JobState:
        """The state of the job of this number."""
        return self.bench.machine.jobs[JobID(f"j-{number}")].job.state

    def _follow(self, action: ev.Action) -> list[ev.Action]:
        if isinstance(action, ev.Verify):
            everybody = frozenset(each.execution_id for each in action.proposals)
            verdict = Verdict(accepted=everybody, rejected=frozenset())
            return self.bench.handle(ev.Verified(action.job_id, verdict, action.group))
        if isinstance(action, ev.Broadcast) and isinstance(action.message, say.JobAnnounced):
            return [each for node in self._eager() for each in self._bid(node, action.message)]
        if isinstance(action, ev.Send) and action.to in self.nodes:
            return self._answer(action.to, action.message)
        return []

    def _eager(self) -> list[PeerID]:
        return sorted(self.nodes, key=lambda node: self.nodes[node] == "honest")

    def _bid(self, node: PeerID, asked: say.JobAnnounced) -> list[ev.Action]:
        if self.nodes[node] == "away":
            return []
        honest = self.nodes[node] == "honest"
        bid = say.Bid(
            job_id=asked.job_id,
            execution_id=ExecutionID(f"e-{asked.job_id}-{asked.round}-{node}"),
            round=asked.round,
            reserved_for=30,
            load=0.1 if honest else 0.0,
            input_bytes=1000,
            local_input_bytes=0 if honest else 1000,
        )
        return self.bench.receive(node, bid)

    def _answer(self, node: PeerID, message: say.Message) -> list[ev.Action]:
        if isinstance(message, say.JobAnnounced):
            return self._bid(node, message)
        if isinstance(message, say.BidAccepted):
            self.accepted[node] += 1
            return self._begin(node, message)
        if isinstance(message, say.ResultAccepted):
            result = PublishedResult(cid=result_cid("right"), location=SpecConfig(type="ipfs"))
            return self.bench.receive(
                node,
                say.ResultPublished(job_id=message.job_id, execution_id=message.execution_id, result=result),
            )
        return []

    def _begin(self, node: PeerID, message: say.BidAccepted) -> list[ev.Action]:
        job_id, name = message.job_id, message.execution_id
        match self.nodes[node]:
            case "honest":
                sealed = plaintext_of(results_folder("right"), job_id, name, node)
                answer = say.ResultProposed(job_id=job_id, execution_id=name, sealed=sealed)
                return self.bench.receive(node, answer)
            case "fails" | "hands back" as behaviour:
                failed = say.ExecutionFailed(
                    job_id=job_id, execution_id=name, reason="no", drained=behaviour == "hands back"
                )
                actions = self.bench.receive(node, failed)
                late = say.Bid(
                    job_id=job_id,
                    execution_id=ExecutionID(f"{name}-again-{self.accepted[node]}"),
                    round=1,
                    reserved_for=30,
                    late=True,
                )
                return actions + self.bench.receive(node, late)
        return []
