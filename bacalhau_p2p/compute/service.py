"""Drives the compute machine: takes messages from requesters, and runs the steps of executions."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

import trio
from trio import TaskStatus

from bacalhau_p2p.bprotocol.draw import lot
from bacalhau_p2p.bprotocol.inbox import Arrival
from bacalhau_p2p.bprotocol.messages import TO_COMPUTE, JobAnnounced, JobOutlined, SpecDelivered
from bacalhau_p2p.bprotocol.messenger import Messenger
from bacalhau_p2p.components.commit_plan import Commit
from bacalhau_p2p.components.driver import Driver
from bacalhau_p2p.compute import events as ev
from bacalhau_p2p.compute.announcement_reader import AnnouncementReader
from bacalhau_p2p.compute.assessment import Assessor
from bacalhau_p2p.compute.inspection import Inspector
from bacalhau_p2p.compute.leftovers import sweep
from bacalhau_p2p.compute.logs.server import LogSource
from bacalhau_p2p.compute.machine import ComputeMachine
from bacalhau_p2p.compute.record import ComputeExecution
from bacalhau_p2p.compute.step_runner import StepRunner
from bacalhau_p2p.compute.store import ComputeStore
from bacalhau_p2p.executors.interface import Executor
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID, UnixSeconds
from bacalhau_p2p.model.state import ComputeState
from bacalhau_p2p.runtime.events import BroadcastEvent
from bacalhau_p2p.runtime.logs import get_logger

log = get_logger(__name__)

_MAY_WRITE = frozenset({ComputeState.BID, ComputeState.PREPARING, ComputeState.RUNNING})
_HAS_RESULTS = _MAY_WRITE | {ComputeState.PROPOSED, ComputeState.PUBLISHING}


class ComputeService(Driver):
    """One node's compute component. Use its methods while `run` runs."""

    def __init__(
        self,
        machine: ComputeMachine,
        store: ComputeStore,
        messenger: Messenger,
        runner: StepRunner,
        assessor: Assessor,
        inspector: Inspector,
        *,
        learn_addresses: Callable[[PeerID, tuple[str, ...]], None],
        clock: Callable[[], UnixSeconds],
    ) -> None:
        super().__init__(machine, store, messenger, clock=clock)
        self._machine: ComputeMachine = machine
        self._store: ComputeStore = store
        self._runner = runner
        self._node_id = assessor.node_id
        self._reader = AnnouncementReader(assessor, machine.awaited)
        self._inspector = inspector
        self._learn_addresses = learn_addresses
        self._ticked = BroadcastEvent()
        messenger.listen(TO_COMPUTE, self._receive)
        messenger.pass_over(self._is_for_others)
        messenger.watch_cut_offs(lambda peer: self._enqueue(ev.RequesterCutOff(peer)))

    def _event_of(self, arrival: Arrival) -> ev.Event:
        """An announcement reaches the machine with an assessment of its job."""
        if isinstance(arrival.message, JobAnnounced | JobOutlined | SpecDelivered):
            return self._reader.event_of(arrival.author, arrival.message)
        for execution_id in self._machine.forgotten(arrival.message):
            ended = self._store.ended(execution_id)
            if ended is not None and ended.requester_id == arrival.author:
                self._enqueue(ev.Recalled(ended))
        return ev.MessageReceived(arrival.author, arrival.message)

    def _is_for_others(self, author: PeerID, job_id: JobID, chance: float) -> bool:
        """Whether this node may not bid on a job, and does not consider it since an earlier round."""
        return lot(job_id, self._node_id) >= chance and not self._machine.considers(author, job_id)

    @property
    def ignored(self) -> Counter[str]:
        """Events that changed nothing, by kind and state."""
        return self._machine.ignored

    def log_source(self, peer: PeerID, execution_id: ExecutionID) -> LogSource | None:
        """Where an execution of this requester writes, or wrote, its output; None for any other peer."""
        execution = self._machine.executions.get(execution_id)
        if execution is not None and execution.requester_id == peer and execution.state in _HAS_RESULTS:
            return LogSource(self._runner.results_of(execution_id), lambda: self._may_write(execution_id))
        kept = self._runner.logs.folder_of(peer, execution_id)
        return None if kept is None else LogSource(kept, lambda: False)

    def _may_write(self, execution_id: ExecutionID) -> bool:
        execution = self._machine.executions.get(execution_id)
        return execution is not None and execution.state in _MAY_WRITE

    @property
    def machine(self) -> ComputeMachine:
        return self._machine

    def unfinished(self) -> Counter[str]:
        """The number of executions that have not ended, by state."""
        states = (execution.state for execution in self._machine.executions.values())
        return Counter(str(state) for state in states if not state.terminal)

    def partners(self) -> set[PeerID]:
        """The requesters of executions that have not ended."""
        executions = self._machine.executions.values()
        return {execution.requester_id for execution in executions if not execution.state.terminal}

    def stop_bidding(self) -> None:
        """Bid no more. What runs goes on."""
        self._enqueue(ev.StopBidding())

    async def drain(self, patience: float) -> None:
        """Bid no more, let executions go on for `patience` seconds, and hand the rest back.

        On return every execution has ended or is durably handed back, and its requester is being told.
        """
        self.stop_bidding()
        with trio.move_on_after(patience):
            while self._machine.active:
                await self._ticked.wait()
        await self._enqueue_and_confirm(ev.HandBack())

    # --- the loop -----------------------------------------------------------------------------

    def resume(self) -> None:
        """Hand what the store holds to the machine. Call it before the first message arrives: a question
        about an execution must find it."""
        self._resume_messages()
        for execution in self._store.active():
            self._enqueue(ev.Resumed(execution))

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Drive the machine until cancelled. Then every step is cancelled, and only what the next process
        resumes is left."""
        await self._runner.remove_leftovers(self._store.active())
        try:
            async with trio.open_nursery() as nursery:
                task_status.started()
                nursery.start_soon(self._runner.remove_set_aside)
                nursery.start_soon(self._runner.logs.expire)
                for executor in self._runner.executors:
                    nursery.start_soon(self._sweep, executor)
                await self._drive(nursery)
        finally:
            with trio.CancelScope(shield=True):
                await self._runner.close()

    async def _sweep(self, executor: Executor) -> None:
        if self._queue:
            await self._ticked.wait()  # then the machine knows which executions were resumed
        await sweep(executor, self._alive)

    def _alive(self) -> set[ExecutionID]:
        return {e.id for e in self._machine.executions.values() if not e.state.terminal}

    def _tick(self) -> None:
        super()._tick()
        self._ticked.fire()

    def _committed(self, commit: Commit) -> None:
        if not log.isEnabledFor(logging.INFO):
            return
        for record in commit.records:
            if isinstance(record, ComputeExecution):
                log.info(
                    "execution",
                    execution=record.id,
                    job=record.job_id,
                    state=str(record.state),
                    message=record.message,
                )

    def _perform(self, action: ev.Action, nursery: trio.Nursery) -> None:
        match action:
            case ev.LearnAddresses(peer, addresses):
                self._learn_addresses(peer, addresses)
            case ev.Inspect():
                self._inspector.begin(action, nursery, self._enqueue)
            case ev.StopInspection():
                self._inspector.stop(action)
            case ev.Prepare() | ev.Run() | ev.Reattach() | ev.Publish():
                self._runner.begin(action, nursery, self._enqueue)
            case ev.Stop(execution_id):
                self._runner.stop(execution_id)
            case ev.ReportGone(requester, silence, executions):
                log.warning("requester_gone", requester=requester, silence=silence, stopped=list(executions))
            case ev.ReportUndelivered(requester, job_id, reason):
                self._messenger.drop(requester, "spec_not_delivered", f"{job_id}: {reason}")
            case ev.CleanUp(execution):
                nursery.start_soon(self._runner.clean_up, execution)
