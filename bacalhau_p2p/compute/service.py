"""Drives the compute machine: hears requesters, and prepares, runs and publishes executions."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio
from trio import TaskStatus

from bacalhau_p2p.bprotocol.messages import TO_COMPUTE
from bacalhau_p2p.bprotocol.messenger import Messenger
from bacalhau_p2p.bprotocol.proposals import encode_proposal
from bacalhau_p2p.components.commit_plan import Commit
from bacalhau_p2p.components.driver import Driver
from bacalhau_p2p.compute import events as ev
from bacalhau_p2p.compute.folders import remove_folder, remove_large_folder
from bacalhau_p2p.compute.inspection import Examiner
from bacalhau_p2p.compute.machine import REMEMBER_ENDED, ComputeMachine
from bacalhau_p2p.compute.record import ComputeExecution
from bacalhau_p2p.compute.store import ComputeStore
from bacalhau_p2p.errors import BacalhauError, ContentError, ExecutionError, ExecutorError
from bacalhau_p2p.executors.interface import Executor, MountedInput, RunRequest
from bacalhau_p2p.ipfs.content import Content
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.store import pin_owners
from bacalhau_p2p.model.base import ExecutionID, PeerID, UnixSeconds
from bacalhau_p2p.model.engine_params import environment_of
from bacalhau_p2p.model.execution import Proposal, RunOutput
from bacalhau_p2p.model.job import InputSource
from bacalhau_p2p.model.state import ComputeState
from bacalhau_p2p.publishers.interface import Publisher
from bacalhau_p2p.runtime.logs import get_logger
from bacalhau_p2p.runtime.tasks import all_or_first_fault
from bacalhau_p2p.storage.interface import PreparedInput, StorageProvider

log = get_logger(__name__)

SWEEP_AGAIN = 15.0
"""Seconds until an engine that did not answer is asked again to remove what an earlier life left."""


@dataclass(slots=True)
class _Workplace:
    """What one execution occupies on this machine until it is cleaned up."""

    folder: Path
    inputs: list[tuple[StorageProvider, PreparedInput]] = field(default_factory=list)
    mounts: list[MountedInput] = field(default_factory=list)
    request: RunRequest | None = None
    """What its executor is asked for, once its inputs are known."""
    step: trio.CancelScope | None = None
    step_ended: trio.Event | None = None


_Work = Callable[[ComputeExecution, _Workplace], Awaitable[ev.Event]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapters:
    """The parts that do the work, by the type that a job names."""

    executors: Mapping[str, Executor]
    storage: Mapping[str, StorageProvider]
    publishers: Mapping[str, Publisher]


class ComputeService(Driver):
    """One node's compute component. Use its methods while `run` runs."""

    def __init__(
        self,
        machine: ComputeMachine,
        store: ComputeStore,
        messenger: Messenger,
        content: Content,
        adapters: Adapters,
        examiner: Examiner,
        *,
        peer_id: PeerID,
        folder: Path,
        seal: Callable[[PeerID, bytes], bytes],
        learn_addresses: Callable[[PeerID, tuple[str, ...]], None],
        changed: Callable[[], None],
        clock: Callable[[], UnixSeconds],
        power_safe: bool = True,
    ) -> None:
        super().__init__(machine, store, messenger, clock=clock, power_safe=power_safe)
        self._machine: ComputeMachine = machine
        self._store: ComputeStore = store
        self._content = content
        self._adapters = adapters
        self._examiner = examiner
        self._peer_id = peer_id
        self._folder = folder
        self._seal = seal
        self._learn_addresses = learn_addresses
        self._tell_changed = changed
        self._places: dict[ExecutionID, _Workplace] = {}
        self._outliving: set[ExecutionID] = set()
        self._idle = trio.Event()
        self._ticked = trio.Event()
        messenger.listen(TO_COMPUTE, self._receive)

    @property
    def machine(self) -> ComputeMachine:
        return self._machine

    def stop_bidding(self) -> None:
        """What runs goes on; no new execution begins."""
        self._enqueue(ev.StopBidding())

    async def drain(self, patience: float) -> None:
        """Bid no more, let what runs go on for `patience` seconds, and give the rest back.

        On return every execution is over or handed back, and that is kept; its requesters are being told.
        """
        self.stop_bidding()
        with trio.move_on_after(patience):
            while self._machine.active:
                await self._idle.wait()
        await self._enqueue_and_confirm(ev.HandBack())

    # --- the loop -----------------------------------------------------------------------------

    def resume(self) -> None:
        """Take up what the store holds. To be called before the first message comes in: what is asked
        about an execution must find it."""
        now = self._clock()
        self._store.forget_ended(now)
        self._resume_messages()
        active = self._store.active()
        for execution in [*self._store.ended_since(now - REMEMBER_ENDED), *active]:
            self._enqueue(ev.Resumed(execution))
        self._outliving = {e.id for e in active if e.state is ComputeState.RUNNING}

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Drive the machine until cancelled; then every step is cancelled, and leaves nothing behind but
        what a next life resumes."""
        await trio.to_thread.run_sync(self._remove_leftovers)
        await self._release_leftovers()
        try:
            async with trio.open_nursery() as nursery:
                task_status.started()
                for executor in self._adapters.executors.values():
                    nursery.start_soon(self._sweep, executor)
                await self._drive(nursery)
        finally:
            with trio.CancelScope(shield=True):
                for execution_id in list(self._places):
                    await self._give_back(self._places.pop(execution_id))

    def _tick(self, nursery: trio.Nursery) -> None:
        before = self._machine.capacity.reserved
        super()._tick(nursery)
        self._ticked.set()
        if self._machine.capacity.reserved != before:
            self._tell_changed()
        if not self._machine.active:
            self._idle.set()
            self._idle = trio.Event()

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
                if peer != self._peer_id:
                    self._learn_addresses(peer, addresses)
            case ev.Examine():
                self._examiner.begin(action, nursery, self._enqueue)
            case ev.StopExamining():
                self._examiner.stop(action)
            case ev.Prepare(execution):
                self._begin(execution, self._prepare, nursery)
            case ev.Run(execution):
                self._begin(execution, self._run, nursery)
            case ev.Reattach(execution):
                self._begin(execution, self._reattach, nursery)
            case ev.Publish(execution):
                self._begin(execution, self._publish, nursery)
            case ev.Stop(execution_id):
                place = self._places.get(execution_id)
                if place is not None and place.step is not None:
                    place.step.cancel()
            case ev.CleanUp(execution):
                nursery.start_soon(self._clean_up, execution)

    # --- the steps of an execution --------------------------------------------------------------

    def _begin(self, execution: ComputeExecution, work: _Work, nursery: trio.Nursery) -> None:
        """Begin a step; a Stop or CleanUp of the same tick finds it."""
        place = self._places.setdefault(execution.id, _Workplace(self._folder / execution.id))
        place.step, place.step_ended = trio.CancelScope(), trio.Event()
        nursery.start_soon(self._step, execution, place, work, place.step, place.step_ended)

    async def _step(
        self,
        execution: ComputeExecution,
        place: _Workplace,
        work: _Work,
        scope: trio.CancelScope,
        ended: trio.Event,
    ) -> None:
        """One step, with its outcome as an event. Cancelled by Stop or the node's end: no event."""
        try:
            failed = await self._attempt(execution, place, work, scope)
            if failed is not None:
                # If it is this run that filled the disk, its failure can be kept only without its files.
                await remove_folder(place.folder)
                self._enqueue(failed)
        finally:
            place.step = None
            ended.set()

    async def _attempt(
        self, execution: ComputeExecution, place: _Workplace, work: _Work, scope: trio.CancelScope
    ) -> ev.StepFailed | None:
        """What is wrong, unless it has worked or was cancelled."""
        try:
            with scope:
                self._enqueue(await work(execution, place))
        except ExecutionError as error:
            return ev.StepFailed(execution.id, str(error), error.permanent)
        except (BacalhauError, OSError) as error:
            return ev.StepFailed(execution.id, str(error), permanent=False)
        except Exception as error:
            log.exception("adapter_fault", execution=execution.id)
            reason = f"{type(error).__name__} in this node's {work.__name__.strip('_')} step: {error}"
            return ev.StepFailed(execution.id, reason, permanent=False)
        return None

    async def _prepare(self, execution: ComputeExecution, place: _Workplace) -> ev.Event:
        try:
            place.folder.mkdir()
        except FileExistsError:  # of an earlier life, whose run vanished
            await remove_folder(place.folder)
            place.folder.mkdir()
        (place.folder / "results").mkdir(mode=0o700)
        if execution.spec.task.input_sources:
            (place.folder / "inputs").mkdir(mode=0o700)
            await self._fetch_inputs(execution, place)
        place.request = self._request(execution, place)
        await self._executor(execution).prepare(place.request)
        return ev.Prepared(execution.id)

    async def _fetch_inputs(self, execution: ComputeExecution, place: _Workplace) -> None:
        sources = execution.spec.task.input_sources
        steps = [
            partial(self._fetch_input, execution, place, index, source)
            for index, source in enumerate(sources)
        ]
        place.mounts = await all_or_first_fault(steps, BacalhauError, OSError)

    async def _fetch_input(
        self, execution: ComputeExecution, place: _Workplace, index: int, source: InputSource
    ) -> MountedInput:
        provider = self._adapters.storage.get(source.source.type)
        if provider is None:
            raise ExecutionError(f"this node has no storage provider for {source.source.type}")
        folder = place.folder / "inputs" / str(index)
        folder.mkdir(mode=0o700)
        prepared = await provider.prepare(source.source, folder, hints=(execution.requester_id,))
        place.inputs.append((provider, prepared))
        return MountedInput(
            path=prepared.path, target=source.target, alias=source.alias, read_only=prepared.read_only
        )

    async def _run(self, execution: ComputeExecution, place: _Workplace) -> ev.Event:
        started = self._clock()
        request = place.request or self._request(execution, place)
        output = await self._executor(execution).run(request)
        return await self._finished(execution, place, output, started)

    async def _reattach(self, execution: ComputeExecution, place: _Workplace) -> ev.Event:
        """Go on with a run that outlived an earlier life of this node."""
        executor = self._adapters.executors.get(execution.spec.task.engine.type)
        if executor is None or not place.folder.is_dir():
            return ev.RunVanished(execution.id)
        output = await executor.reattach(self._request(execution, place))
        if output is None:
            return ev.RunVanished(execution.id)
        return await self._finished(execution, place, output, execution.modified)

    async def _finished(
        self, execution: ComputeExecution, place: _Workplace, output: RunOutput, started: UnixSeconds
    ) -> ev.Event:
        added = await self._content.add(
            place.folder / "results", pin_owner=pin_owners.execution(execution.id)
        )
        entries = {name: str(cid) for name, cid in added.entries.items()}
        proposal = self._proposal(execution, str(added.cid), entries, output, started)
        sealed = self._seal(execution.requester_id, encode_proposal(proposal))
        return ev.RunFinished(execution.id, proposal.result_cid, sealed)

    def _proposal(
        self,
        execution: ComputeExecution,
        cid: str,
        entries: Mapping[str, str],
        output: RunOutput,
        started: UnixSeconds,
    ) -> Proposal:
        return Proposal(
            job_id=execution.job_id,
            execution_id=execution.id,
            node_id=self._peer_id,
            result_cid=cid,
            entries=entries,
            output=output,
            started=started,
            ended=self._clock(),
        )

    async def _publish(self, execution: ComputeExecution, place: _Workplace) -> ev.Event:
        config = execution.spec.task.publisher
        publisher = self._adapters.publishers.get(config.type)
        if publisher is None or execution.result_cid is None:
            raise ExecutionError(f"this node has no {config.type} publisher")
        result = await publisher.publish(config, execution.job_id, execution.id, execution.result_cid)
        return ev.Published(execution.id, result)

    def _executor(self, execution: ComputeExecution) -> Executor:
        executor = self._adapters.executors.get(execution.spec.task.engine.type)
        if executor is None:
            raise ExecutorError(f"this node has no {execution.spec.task.engine.type} engine")
        return executor

    def _request(self, execution: ComputeExecution, place: _Workplace) -> RunRequest:
        spec = execution.spec
        return RunRequest(
            job_id=execution.job_id,
            execution_id=execution.id,
            engine=spec.task.engine,
            inputs=tuple(place.mounts),
            result_paths=spec.task.result_paths,
            environment=environment_of(spec.task),
            resources=spec.resources,
            network=spec.task.network,
            timeout=spec.execution_timeout,
            deterministic=spec.deterministic,
            work=place.folder / "work",
            results=place.folder / "results",
            labels={"requester": execution.requester_id},
        )

    # --- tidying ------------------------------------------------------------------------------

    async def _clean_up(self, execution: ComputeExecution) -> None:
        place = self._places.pop(execution.id, None) or _Workplace(self._folder / execution.id)
        if place.step_ended is not None:
            await place.step_ended.wait()
        await self._give_back(place)
        if execution.result_cid is not None:
            try:
                await self._content.unpin(CID.parse(execution.result_cid), pin_owners.execution(execution.id))
            except ContentError as error:  # the next start takes it back
                log.warning("pin_left_behind", execution=execution.id, reason=str(error))

    async def _sweep(self, executor: Executor) -> None:
        """Until it has worked: an engine may start later than its node."""
        if self._queue:
            await self._ticked.wait()  # the machine knows by then what is resumed
        while True:
            alive = {e.id for e in self._machine.executions.values() if not e.state.terminal}
            try:
                await executor.sweep(alive)
                return
            except ExecutorError as error:
                log.info("sweep_put_off", engine=executor.engine, reason=str(error))
            await trio.sleep(SWEEP_AGAIN)

    async def _give_back(self, place: _Workplace) -> None:
        for provider, prepared in place.inputs:
            await provider.cleanup(prepared)
        await remove_folder(place.folder)

    async def _release_leftovers(self) -> None:
        """Pins of executions that a crash cut short before they could take them back."""
        live = {pin_owners.execution(execution.id) for execution in self._store.active()}
        for pin in await self._content.pins():
            if pin_owners.is_execution(pin.owner) and pin.owner not in live:
                await self._content.unpin(pin.cid, pin.owner)

    def _remove_leftovers(self) -> None:
        """Folders of executions that a crash cut short, unless a container may still work in them."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for folder in self._folder.iterdir():
            if folder.name not in self._outliving:
                remove_large_folder(folder)
