"""Runs the steps of executions in tasks of their own, each execution in its workplace."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Collection
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from bacalhau_p2p.components.adapter_calls import CLEANUP_TIMEOUT, call_adapter, reason_of
from bacalhau_p2p.compute import events as ev
from bacalhau_p2p.compute import leftovers
from bacalhau_p2p.compute.failed_results import FailedResults
from bacalhau_p2p.compute.folders import bytes_below, remove_folder, remove_set_aside
from bacalhau_p2p.compute.logs.files import StreamFiles
from bacalhau_p2p.compute.logs.kept import KeptLogs
from bacalhau_p2p.compute.record import ComputeExecution
from bacalhau_p2p.compute.steps import Steps, Workplace
from bacalhau_p2p.errors import ContentError, ExecutionError, StorageError
from bacalhau_p2p.executors.interface import Executor
from bacalhau_p2p.ipfs.content.content import Content
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.store import pin_owners
from bacalhau_p2p.model.base import ExecutionID
from bacalhau_p2p.model.state import ComputeState
from bacalhau_p2p.runtime.logs import about, get_logger
from bacalhau_p2p.runtime.tasks import background

log = get_logger(__name__)

LAST_LINES = 10
"""Lines of output that are shown with the reason of a failure."""
LAST_LINES_LENGTH = 1_000
"""Characters of these lines."""

FIRST_FETCH_UPDATE = 1.0
"""Seconds of fetching inputs after which it is first told how much is here. Each further pause is twice as
long."""
MAX_FETCH_UPDATES = 9
"""More than are told until preparing has taken too long."""
TOLD_AFTER = 1.0
"""Seconds that anything else takes, such as compiling a module, after which it is told."""
MAX_NOTES = 10
"""Such things of one execution that are told."""

EngineProblem = Callable[[str], Awaitable[str | None]]
"""Asks an engine, by its name, why it does not work now; None if it does."""

StepAction = ev.Prepare | ev.Run | ev.Reattach | ev.Publish


@dataclass(frozen=True, slots=True)
class _RunningStep:
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: trio.Event = field(default_factory=trio.Event)


class _Waits:
    """Reports what a preparation waits for besides its inputs, if it still does after a moment."""

    def __init__(
        self, execution_id: ExecutionID, nursery: trio.Nursery, report: Callable[[ev.Event], None]
    ) -> None:
        self._execution_id = execution_id
        self._nursery = nursery
        self._report = report
        self._doing = ""
        self._count = 0

    def note(self, doing: str) -> None:
        """It waits for this from now on; for nothing, if the text is empty."""
        if doing and doing != self._doing and self._count < MAX_NOTES:
            self._count += 1
            self._nursery.start_soon(self._tell_later, doing)
        self._doing = doing

    def end(self) -> None:
        """The step has ended."""
        self._doing = ""

    async def _tell_later(self, doing: str) -> None:
        await trio.sleep(TOLD_AFTER)
        if self._doing == doing:
            self._report(ev.PreparationTold(self._execution_id, doing=doing))


class StepRunner:
    """One step of an execution at a time; many executions side by side."""

    def __init__(
        self,
        steps: Steps,
        content: Content,
        folder: Path,
        logs: KeptLogs,
        failed: FailedResults,
        engine_problem: EngineProblem,
    ) -> None:
        """`folder` holds the workplaces of all executions, `logs` and `failed` what those without a result
        wrote."""
        self._failed = failed
        self._engine_problem = engine_problem
        self._content = content
        self._folder = folder
        self._steps = steps
        self.logs = logs
        self._places: dict[ExecutionID, Workplace] = {}
        self._running: dict[ExecutionID, _RunningStep] = {}

    @property
    def executors(self) -> Collection[Executor]:
        return self._steps.adapters.executors.values()

    async def remove_leftovers(self, active: Collection[ComputeExecution]) -> None:
        """Remove folders and pins of executions that an earlier process did not clean up. The folder of a
        running execution stays: its container may still work in it."""
        running = {execution.id for execution in active if execution.state is ComputeState.RUNNING}
        await trio.to_thread.run_sync(leftovers.set_folders_aside, self._folder, running)
        try:
            await leftovers.release_pins(self._content, [execution.id for execution in active])
        except ContentError as error:  # the next start tries again
            log.warning("pins_left_behind", reason=str(error))

    async def remove_set_aside(self) -> None:
        """Remove folders that could not be removed when their executions ended, until cancelled."""
        await remove_set_aside(self._folder)

    def begin(self, action: StepAction, nursery: trio.Nursery, report: Callable[[ev.Event], None]) -> None:
        """Begin a step, and `report` what it came to. `stop` and `clean_up` find it from now on."""
        execution = action.execution
        if (place := self._places.get(execution.id)) is None:
            place = self._places[execution.id] = self._new_place(execution.id)
        running = self._running[execution.id] = _RunningStep()
        waits = _Waits(execution.id, nursery, report)
        with about(job=execution.job_id, execution=execution.id):
            nursery.start_soon(self._run, action, place, running, waits, report)

    def stop(self, execution_id: ExecutionID) -> None:
        """Cancel the step that is running, if any. It reports nothing."""
        if (running := self._running.get(execution_id)) is not None:
            running.scope.cancel()

    async def clean_up(self, execution: ComputeExecution) -> None:
        """Wait for the step that is running, then remove the workplace and unpin the result. What fails is
        left to the next start."""
        try:
            with about(job=execution.job_id, execution=execution.id):
                await call_adapter("clean-up", partial(self._clean_up, execution), execution=execution.id)
        except ExecutionError as error:
            log.warning("not_cleaned_up", execution=execution.id, reason=str(error))

    async def _clean_up(self, execution: ComputeExecution) -> None:
        place = self._places.pop(execution.id, None) or self._left_place(execution.id)
        if (running := self._running.get(execution.id)) is not None:
            await running.ended.wait()
        if place is not None:
            if execution.state is not ComputeState.COMPLETED:
                await self.logs.keep(execution.requester_id, execution.id, place.results)
            await self._remove(place)
        if execution.result_cid is not None:
            try:
                await self._content.unpin(CID.parse(execution.result_cid), pin_owners.execution(execution.id))
            except ContentError as error:  # the next start removes it
                log.warning("pin_left_behind", execution=execution.id, reason=str(error))

    async def close(self) -> None:
        """Remove all workplaces. No step may be running."""
        for execution_id in list(self._places):
            await self._remove(self._places.pop(execution_id))

    async def _run(
        self,
        action: StepAction,
        place: Workplace,
        running: _RunningStep,
        waits: _Waits,
        report: Callable[[ev.Event], None],
    ) -> None:
        execution, step = action.execution, self._step(action, place, waits)

        async def until_stopped() -> ev.Event | None:
            with running.scope:
                if not isinstance(action, ev.Prepare) or not execution.spec.task.input_sources:
                    return await step()
                async with background() as nursery:
                    nursery.start_soon(_tell_fetched, execution.id, place, report)
                    return await step()
            return None

        try:
            name = type(action).__name__.lower()
            outcome = await call_adapter(f"{name} step", until_stopped, execution=execution.id)
        except ExecutionError as error:
            outcome = await self._failure(action, place, error)
        finally:
            waits.end()
            if self._running.get(execution.id) is running:
                del self._running[execution.id]
            running.ended.set()
        if outcome is not None:
            report(outcome)

    async def _failure(self, action: StepAction, place: Workplace, error: ExecutionError) -> ev.StepEvent:
        """What a step came to that raised this. Removes the workplace."""
        execution = action.execution
        reason = reason_of(error) + _last_lines(place.results)
        left = await bytes_below(place.results) if place.request is not None else None
        kept = None
        if execution.spec.keep_failed_results and isinstance(action, ev.Run | ev.Reattach):
            kept = await self._failed.keep(execution, place.results) or None
        # If this run has filled the disk, there is room to commit its failure only without its files.
        await self.logs.keep(execution.requester_id, execution.id, place.results)
        await remove_folder(place.folder)
        if not isinstance(action, ev.Publish) and not isinstance(error, StorageError):
            engine = execution.spec.task.engine.type
            problem = await self._engine_problem(engine)
            if problem is not None and isinstance(action, ev.Prepare):
                return ev.EngineStopped(execution.id, f"engine {engine} stopped working: {problem}")
        used = None if isinstance(action, ev.Publish) else place.usage(left)
        return ev.StepFailed(execution.id, reason, bool(error.permanent), used, kept)

    def _step(self, action: StepAction, place: Workplace, waits: _Waits) -> Callable[[], Awaitable[ev.Event]]:
        match action:
            case ev.Prepare(execution):
                return partial(self._steps.prepare, execution, place, waits.note)
            case ev.Run(execution):
                return partial(self._steps.run, execution, place)
            case ev.Reattach(execution):
                return partial(self._steps.reattach, execution, place)
            case ev.Publish(execution):
                return partial(self._steps.publish, execution, place)

    async def _remove(self, place: Workplace) -> None:
        for provider, prepared in place.inputs:
            try:
                cleanup = partial(provider.cleanup, prepared)
                await call_adapter("input cleanup", cleanup, timeout=CLEANUP_TIMEOUT)
            except ExecutionError as error:
                log.warning("input_left_behind", path=str(prepared.path), reason=str(error))
        await remove_folder(place.folder)

    def results_of(self, execution_id: ExecutionID) -> Path:
        """The results folder of an execution, as long as it has one."""
        return self._new_place(execution_id).results

    def _left_place(self, execution_id: ExecutionID) -> Workplace | None:
        """What an earlier process left of an execution. Most have nothing: they are bids that were rejected,
        and a path object for each would leave a gap in a table of the interpreter that grows with them."""
        left = os.path.lexists(f"{self._folder}/{execution_id}")
        return self._new_place(execution_id) if left else None

    def _new_place(self, execution_id: ExecutionID) -> Workplace:
        return Workplace(self._folder / execution_id)


async def _tell_fetched(
    execution_id: ExecutionID, place: Workplace, report: Callable[[ev.Event], None]
) -> None:
    """Report how much of the inputs is here, less and less often."""
    told = place.fetched
    for update in range(MAX_FETCH_UPDATES):
        await trio.sleep(FIRST_FETCH_UPDATE * 2**update)
        if (fetched := place.fetched) != told:
            told = fetched
            report(ev.PreparationTold(execution_id, fetched))


def _last_lines(results: Path) -> str:
    """The end of what a run wrote, to go below the reason why it failed."""
    with closing(StreamFiles(results)) as files:
        try:
            lines = files.last_lines(LAST_LINES, LAST_LINES_LENGTH)
        except OSError:
            return ""
    return f"\n{lines}" if lines else ""
