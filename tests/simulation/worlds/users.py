"""Users. Each submits one job, repeats it with the same token until there is an answer, and may cancel it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from bacalhau_p2p.components.commit_plan import QueuedEvent
from bacalhau_p2p.model.base import JobID, PeerID
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.requester import events as rv
from bacalhau_p2p.requester.store import SubmissionToken
from tests.simulation.nodes.node import SimulatedNode
from tests.simulation.nodes.running_node import RunningNode
from tests.simulation.nodes.timeline import Timeline
from tests.simulation.plans.plan import DATA, OUTLIVING, JobPlan

RETRY_DELAY = 1.0
"""Seconds until a user tries again."""


@dataclass(slots=True)
class User:
    plan: JobPlan
    attempts: int = 0
    asked: RunningNode | None = None
    """The process that was asked last."""
    answer: JobID | None = None


class Users:
    """All users of a world."""

    def __init__(
        self,
        jobs: Mapping[str, JobPlan],
        timeline: Timeline,
        nodes: Mapping[PeerID, SimulatedNode],
        answered: Callable[[JobPlan, JobID], None],
    ) -> None:
        """`answered` is called when a user is given the id of a job."""
        self.all = [User(job) for job in jobs.values()]
        self._specs = {name: spec_of(job) for name, job in jobs.items()}
        self._timeline = timeline
        self._nodes = nodes
        self._answered = answered

    def begin(self) -> None:
        """Schedule what users do."""
        start = self._timeline.start
        for user in self.all:
            self._timeline.at(start + user.plan.at, partial(self._submit, user))
            if user.plan.cancel_at is not None:
                self._timeline.at(start + user.plan.cancel_at, partial(self._cancel, user))

    def ends(self) -> list[str]:
        """The state of each job that was answered."""
        stores = [self._nodes[PeerID(user.plan.requester)].disk.requester_store for user in self.all]
        jobs = [store.known(user.answer) for store, user in zip(stores, self.all, strict=True)]
        return [str(job.state) for job in jobs if job is not None]

    def _submit(self, user: User) -> None:
        if user.answer is not None:
            return
        self._timeline.at(self._timeline.now + RETRY_DELAY, partial(self._submit, user))
        node = self._nodes.get(PeerID(user.plan.requester))
        running = node.running if node is not None else None
        if node is None or running is None or running is user.asked or running.requester is None:
            return
        token = user.plan.name
        known = node.disk.requester_store.tokens.get(token)
        if known is not None and known in node.disk.requester_store.records:
            self._answer(user, JobID(known))
            return
        user.asked = running
        user.attempts += 1
        job_id = JobID(f"{token}.{user.attempts}" if user.attempts > 1 else token)
        running.requester.enqueue(
            QueuedEvent(
                rv.Submitted(job_id, self._specs[token]),
                confirm=partial(self._answer, user, job_id),
                refuse=partial(self._ask_again, user),
                note=SubmissionToken(job_id, token),
            )
        )

    def _ask_again(self, user: User, reason: str) -> None:
        user.asked = None

    def _answer(self, user: User, job_id: JobID) -> None:
        user.answer = job_id
        self._answered(user.plan, job_id)

    def _cancel(self, user: User) -> None:
        node = self._nodes.get(PeerID(user.plan.requester))
        running = node.running if node is not None else None
        if user.answer is None or running is None or running.requester is None:
            self._timeline.at(self._timeline.now + RETRY_DELAY, partial(self._cancel, user))
            return
        self._timeline.count_fault("cancel")
        running.requester.put(rv.CancelRequested(user.answer, "cancelled by the user"))


def spec_of(job: JobPlan) -> JobSpec:
    """The job as a user would write it."""
    verifier: dict[str, object] = {"Type": job.verifier}
    if job.verifier == "deterministic":
        verifier["Params"] = {"Confidence": job.confidence, "Entries": list(job.compared)}
    task: dict[str, object] = {
        "Engine": {"Type": OUTLIVING if job.survives else "noop"},
        "Publisher": {"Type": "ipfs"},
        "Resources": {"CPU": str(job.cpu)},
        "Timeouts": {
            "ExecutionTimeout": job.execution_timeout,
            "QueueTimeout": job.queue_timeout,
            "TotalTimeout": job.total_timeout,
        },
    }
    if job.padding:
        lengths = [min(100_000, job.padding - start) for start in range(0, job.padding, 100_000)]
        task["Env"] = {f"PADDING{number}": "x" * length for number, length in enumerate(lengths)}
    if job.inspection is not None:
        task["InputSources"] = [{"Target": "/inputs", "Source": {"Type": DATA}}]
    return job_from_mapping(
        {
            "Name": job.name,
            "Type": "ops" if job.ops else "batch",
            "Count": job.count,
            "Priority": job.priority,
            "Verifier": verifier,
            "Deal": {"MinBids": job.min_bids, "Replicas": job.replicas},
            "Tasks": [task],
        }
    )
