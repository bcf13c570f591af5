"""A node's executor, storage and publisher. Steps take time, fail, hang or give wrong results as planned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from bacalhau_p2p.compute import events as ev
from bacalhau_p2p.compute.bidding import Findings
from bacalhau_p2p.compute.record import ComputeExecution
from bacalhau_p2p.model.base import ExecutionID, PeerID
from bacalhau_p2p.model.execution import PublishedResult
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.state import ComputeState
from tests.simulation.nodes.network import next_step
from tests.simulation.nodes.process import Process
from tests.simulation.nodes.timeline import Timeline
from tests.simulation.plans.plan import OUTLIVING, JobPlan, NodePlan, Step, StepFault, StepOutcome
from tests.support.results import plaintext_of, result_cid, results_folder

Report = Callable[[ev.Event], None]
"""Gives the component of the process what a step came to."""


def _inspection_of(job: ev.Inspect | ev.StopInspection) -> ExecutionID:
    """The key of an inspection: there is no execution yet."""
    return ExecutionID(f"inspection of {job.job_id} of {job.requester}")


def part_of(execution: ComputeExecution, node: str) -> str:
    """What a run is about: the whole job, one partition of it, or one node."""
    if execution.spec.is_ops:
        return f"{execution.job_id} on {node}"
    if execution.spec.divided:
        return f"{execution.job_id}, partition {execution.partition}"
    return execution.job_id


@dataclass(slots=True)
class _Run:
    """A container. It goes on without its node's process. `outcome` is None if it never ends."""

    ends: float
    outcome: ev.RunFinished | ev.StepFailed | None
    survives: bool


class Engine:
    """The machine under a node. It outlives the node's processes, but not a power cut."""

    def __init__(
        self, plan: NodePlan, jobs: Mapping[str, JobPlan], faults: Iterable[StepFault], timeline: Timeline
    ) -> None:
        """`jobs` are all jobs of the world, by name."""
        self._plan = plan
        self._jobs = jobs
        self._timeline = timeline
        self._faults = {(fault.step, fault.number): fault.outcome for fault in faults}
        self._steps: Counter[str] = Counter()
        self._under_way: dict[ExecutionID, object] = {}
        self.runs: dict[ExecutionID, _Run] = {}
        self.results: dict[ExecutionID, str] = {}
        """Pinned results by execution."""
        self.truth: dict[ExecutionID, str] = {}
        """The result of each run."""
        self.partitions: dict[ExecutionID, int] = {}
        """Which partition of its job each run did."""
        self.contents: dict[str, dict[str, str]] = {}
        """The entries of each results folder that it made, by CID."""
        self.started: Counter[ExecutionID] = Counter()
        self.inspections = 0
        """Jobs that were inspected before a bid."""

    # --- before a bid ---------------------------------------------------------------------------

    def inspect(self, process: Process, report: Report, asked: ev.Inspect) -> None:
        self.inspections += 1
        job = self._jobs[asked.spec.name]
        outcome = self.outcome_of("inspect")
        size = job.input_disk
        refusal = "the inspection of an input failed" if outcome in ("retryable", "permanent") else None
        if asked.only_if_local and not self._plan.holds_data:
            refusal = "runs only jobs whose inputs are local"
        findings = Findings(
            refusal=refusal,
            input_bytes=size,
            local_input_bytes=size if self._plan.holds_data else 0,
            disk=0 if self._plan.holds_data else size,
        )
        answer = ev.Inspected(asked.requester, asked.job_id, findings, asked.only_if_local)
        takes = (job.inspection or 0.0) / self._plan.speed
        self._later(process, report, _inspection_of(asked), takes, None if outcome == "hang" else answer)

    def stop_inspecting(self, unwanted: ev.StopInspection) -> None:
        self._under_way.pop(_inspection_of(unwanted), None)

    # --- actions --------------------------------------------------------------------------------

    def prepare(self, process: Process, report: Report, execution: ComputeExecution) -> None:
        outcome = self.outcome_of("prepare")
        outlives = execution.spec.task.engine.type == OUTLIVING
        answer: ev.Event | None = ev.Prepared(execution.id, outlives)
        if outcome == "retryable" and execution.id[-1] in "02468ace":
            answer = ev.EngineStopped(execution.id, "the engine stopped working")
        elif outcome in ("retryable", "permanent"):
            answer = ev.StepFailed(execution.id, "an input cannot be fetched", outcome == "permanent")
        takes = self._job(execution).prepare
        self._later(process, report, execution.id, takes, None if outcome == "hang" else answer)

    def run(self, process: Process, report: Report, execution: ComputeExecution) -> None:
        job = self._job(execution)
        outcome = self.outcome_of("run")
        takes = job.run / self._plan.speed
        limit = execution.spec.execution_timeout
        answer: ev.RunFinished | ev.StepFailed | None = self._finished(execution, outcome)
        if outcome == "hang":
            answer = None
        elif outcome in ("retryable", "permanent"):
            answer = ev.StepFailed(execution.id, "the engine failed", outcome == "permanent")
        elif takes > limit:
            takes, answer = limit, ev.StepFailed(execution.id, f"still running after {limit:g} s", False)
        self.started[execution.id] += 1
        self.partitions[execution.id] = execution.partition
        run = _Run(next_step(self._timeline.now + takes), answer, job.survives)
        self.runs[execution.id] = run
        self._watch_run(process, report, execution.id, run)

    def reattach(self, process: Process, report: Report, execution: ComputeExecution) -> None:
        run = self.runs.get(execution.id)
        if run is None:
            self._later(process, report, execution.id, 0.05, ev.RunVanished(execution.id))
        else:
            self._watch_run(process, report, execution.id, run)

    def publish(self, process: Process, report: Report, execution: ComputeExecution) -> None:
        outcome = self.outcome_of("publish")
        cid = self.results.get(execution.id)
        answer: ev.Event | None
        if cid is None or outcome in ("retryable", "permanent"):
            answer = ev.StepFailed(execution.id, "the publisher cannot be reached", outcome == "permanent")
        else:
            cid = result_cid("swapped") if outcome == "wrong" else cid
            answer = ev.Published(execution.id, PublishedResult(cid=cid, location=SpecConfig(type="ipfs")))
        takes = self._job(execution).publish
        self._later(process, report, execution.id, takes, None if outcome == "hang" else answer)

    def stop(self, execution_id: ExecutionID) -> None:
        self._under_way.pop(execution_id, None)
        self.runs.pop(execution_id, None)

    def clean_up(self, execution_id: ExecutionID) -> None:
        self.stop(execution_id)
        self.results.pop(execution_id, None)

    # --- the node's processes -------------------------------------------------------------------

    def process_died(self, *, power: bool) -> None:
        self._under_way.clear()
        self.runs = {name: run for name, run in self.runs.items() if run.survives and not power}

    def sweep(self, resumed: Iterable[ComputeExecution]) -> None:
        """Remove what belongs to no active execution, as every start of a node does."""
        living = {e.id: e.state for e in resumed if not e.state.terminal}
        keeps_result = (ComputeState.PROPOSED, ComputeState.PUBLISHING)
        self.runs = {name: run for name, run in self.runs.items() if living.get(name) == ComputeState.RUNNING}
        self.results = {name: cid for name, cid in self.results.items() if living.get(name) in keeps_result}

    # --- inside ---------------------------------------------------------------------------------

    def _finished(self, execution: ComputeExecution, outcome: StepOutcome | None) -> ev.RunFinished:
        wrong = self._plan.lie or ("-garbled" if outcome == "wrong" else "")
        folder = results_folder(f"result of {part_of(execution, self._plan.name)}{wrong}")
        self.contents[folder.cid] = folder.entries
        if self._plan.false_root:
            false = results_folder(f"lie about {execution.job_id}")
            self.contents[false.cid] = false.entries
            folder = folder._replace(cid=false.cid, root=false.root)
        plaintext = plaintext_of(folder, execution.job_id, execution.id, PeerID(self._plan.name))
        return ev.RunFinished(execution.id, folder.cid, plaintext)

    def _watch_run(self, process: Process, report: Report, execution_id: ExecutionID, run: _Run) -> None:
        takes = max(0.0, run.ends - self._timeline.now)

        def collect() -> None:
            # The container itself stays until the clean-up: a crash may come before this is committed.
            if isinstance(run.outcome, ev.RunFinished):
                self.results[execution_id] = self.truth[execution_id] = run.outcome.result_cid

        self._later(process, report, execution_id, takes, run.outcome, before=collect)

    def _later(
        self,
        process: Process,
        report: Report,
        execution_id: ExecutionID,
        takes: float,
        answer: ev.Event | None,
        before: Callable[[], None] | None = None,
    ) -> None:
        token = self._under_way[execution_id] = object()

        def end() -> None:
            if self._under_way.get(execution_id) is not token or answer is None or process.postpones(end):
                return
            del self._under_way[execution_id]
            if before is not None:
                before()
            self._timeline.note(process.peer, "step", None, answer)
            report(answer)

        if answer is not None:
            process.at(next_step(self._timeline.now + takes), end)

    def outcome_of(self, step: Step) -> StepOutcome | None:
        """The planned fault of the next step of this kind, if any."""
        self._steps[step] += 1
        outcome = None if self._timeline.healed else self._faults.get((step, self._steps[step]))
        if outcome is not None:
            self._timeline.count_fault(f"{step}: {outcome}")
        return outcome

    def _job(self, execution: ComputeExecution) -> JobPlan:
        return self._jobs[execution.spec.name]
