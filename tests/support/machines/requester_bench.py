"""A requester's machine with a clock, and the nodes that send messages to it."""

from __future__ import annotations

from collections.abc import Iterable

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.bprotocol.proposals import decode_proposal
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import Execution, PublishedResult
from bacalhau_p2p.model.history import HistoryEvent
from bacalhau_p2p.model.job import JobSpec, SpecConfig
from bacalhau_p2p.model.node import ComputeInfo, NodeInfo
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.model.resources import Resources
from bacalhau_p2p.model.state import ComputeState, ExecutionState
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.requester.liveness import LOST_AFTER_SURVIVING
from bacalhau_p2p.requester.machine import Environment, RequesterMachine
from bacalhau_p2p.verifiers.interface import Verdict
from tests.support.machines.derived import drifted
from tests.support.machines.machine_bench import FixedRandom, MachineBench
from tests.support.results import plaintext_of, result_cid, results_folder

S = ExecutionState
JOB = JobID("j-1")
A, B, C, D = (PeerID(name) for name in ("alice", "bob", "carol", "dave"))
ROOM = Resources(cpu=8, memory=2**34, disk=2**40)


def job(count: int = 1, *, verifier: str = "noop", **extra: object) -> JobSpec:
    """A noop job; `extra` is put into it as users write it."""
    return job_from_mapping(
        {"Count": count, "Verifier": {"Type": verifier}, "Tasks": [{"Engine": {"Type": "noop"}}], **extra}
    )


class RequesterBench(MachineBench):
    """A machine whose nodes send proposals unsealed. Its only job is `JOB`."""

    def __init__(self, *, lost_after_surviving: float = LOST_AFTER_SURVIVING) -> None:
        environment = Environment(
            peer_id=PeerID("me"),
            addresses=(),
            open_proposal=decode_proposal,
            rng=FixedRandom(0.5),
            lost_after_surviving=lost_after_surviving,
        )
        super().__init__(RequesterMachine(environment))
        self.checked = True
        """Whether what the machine keeps up to date is compared with its records after each event."""

    def handle(self, event: ev.Event) -> list[ev.Action]:
        """As in `MachineBench`."""
        actions = super().handle(event)
        if self.checked:
            assert drifted(self.machine, self.now) == []
        return actions

    def receive(self, author: PeerID, message: say.Message) -> list[ev.Action]:
        return self.handle(ev.MessageReceived(author, message))

    def add_nodes(self, *nodes: PeerID) -> None:
        for node in nodes:
            compute = ComputeInfo(
                engines=("noop",), publishers=("ipfs",), max_capacity=ROOM, available_capacity=ROOM
            )
            self.handle(ev.NodeInfoReceived(NodeInfo(id=node, compute=compute)))

    def submit(self, spec: JobSpec) -> list[ev.Action]:
        return self.handle(ev.Submitted(JOB, spec))

    def bid(
        self, node: PeerID, load: float = 0.0, attempt: int = 1, *, outlives: bool = False
    ) -> list[ev.Action]:
        message = say.Bid(
            job_id=JOB,
            execution_id=execution_id(node, attempt),
            reserved_for=30,
            load=load,
            outlives_node=outlives,
        )
        return self.receive(node, message)

    def propose(self, node: PeerID, result: str = "right", attempt: int = 1) -> list[ev.Action]:
        return self.receive(node, proposed(node, result, attempt))

    def publish(self, node: PeerID, result: str = "right", attempt: int = 1) -> list[ev.Action]:
        published = PublishedResult(cid=result_cid(result), location=SpecConfig(type="ipfs"))
        message = say.ResultPublished(job_id=JOB, execution_id=execution_id(node, attempt), result=published)
        return self.receive(node, message)

    def fail(self, node: PeerID, *, permanent: bool = False, attempt: int = 1) -> list[ev.Action]:
        return self.receive(
            node,
            say.ExecutionFailed(
                job_id=JOB,
                execution_id=execution_id(node, attempt),
                reason="no such image",
                permanent=permanent,
            ),
        )

    def judge(self, accepted: Iterable[PeerID], rejected: Iterable[PeerID] = (), reason: str = "") -> None:
        self.handle(
            ev.Verified(
                JOB,
                Verdict(
                    accepted=frozenset(execution_id(node) for node in accepted),
                    rejected=frozenset(execution_id(node) for node in rejected),
                    reason=reason,
                ),
            )
        )

    @property
    def job(self):
        return self.machine.jobs[JOB].job

    def states(self) -> dict[PeerID, ExecutionState]:
        """The state of each node's latest execution."""
        return {e.node_id: e.state for e in self.machine.jobs[JOB].executions.values()}


def execution_id(node: PeerID, attempt: int = 1) -> ExecutionID:
    return ExecutionID(f"e-{node}-{attempt}")


def proposed(
    node: PeerID, result: str = "right", attempt: int = 1, *, made_by: PeerID | None = None
) -> say.ResultProposed:
    """The proposal of a job that printed `result`; `made_by` another node than the one that sends it."""
    author = made_by or node
    plaintext = plaintext_of(results_folder(result), JOB, execution_id(author, attempt), author)
    return say.ResultProposed(job_id=JOB, execution_id=execution_id(node, attempt), sealed=plaintext)


def sent(actions: Iterable[ev.Action]) -> list[tuple[PeerID, str]]:
    """The messages to single nodes: to whom, and of which kind."""
    return [(action.to, action.message.kind) for action in actions if isinstance(action, ev.Send)]


def announced(actions: Iterable[ev.Action]) -> list[say.JobAnnounced]:
    return [
        action.message
        for action in actions
        if isinstance(action, ev.Broadcast) and isinstance(action.message, say.JobAnnounced)
    ]


def run_on(bench: RequesterBench, spec: JobSpec, *nodes: PeerID) -> None:
    """Submit the job and accept a bid of each node."""
    bench.add_nodes(*nodes)
    bench.submit(spec)
    for node in nodes:
        bench.bid(node)


def heartbeat_of(node: PeerID) -> say.Heartbeat:
    running = say.ExecutionProgress(execution_id=execution_id(node), state=ComputeState.RUNNING)
    return say.Heartbeat(executions=(running,))


def restarted(bench: RequesterBench, known: Iterable[PeerID] = (A, B, C, D)) -> RequesterBench:
    """The requester killed and started again with what it had stored. It knows the nodes in `known`."""
    stored: dict[str, Execution] = {}
    for action in bench.done:
        if isinstance(action, ev.Store) and isinstance(action.record, Execution):
            stored[action.record.id] = action.record
    again = RequesterBench()
    again.now, again.done = bench.now, list(bench.done)
    again.add_nodes(*known)
    again.handle(ev.Resumed(bench.job, tuple(stored.values()), len(told(bench))))
    return again


def told(bench: RequesterBench) -> list[HistoryEvent]:
    """The history of the job."""
    return [action.event for action in bench.done if isinstance(action, ev.Append)]


def place_on(bench: RequesterBench, node: PeerID) -> None:
    """Fill the open slot of the job with an execution on this node."""
    bench.wait(40)
    bench.bid(node)
    while bench.states()[node] is S.BID_RECEIVED:
        bench.wait(1)
    assert bench.states()[node] is S.BID_ACCEPTED
