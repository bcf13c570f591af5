"""The steps of an execution: prepare its inputs, run it or take up its run again, and publish its result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import trio

from bacalhau_p2p.bprotocol.messages import MAX_INPUTS_TOLD, InputProgress
from bacalhau_p2p.bprotocol.proposals import MAX_ROOT, encode_proposal
from bacalhau_p2p.components.adapter_calls import expected
from bacalhau_p2p.compute import events as ev
from bacalhau_p2p.compute.adapters import Adapters
from bacalhau_p2p.compute.folders import bytes_below, remove_folder
from bacalhau_p2p.compute.record import ComputeExecution
from bacalhau_p2p.compute.variables import node_variables
from bacalhau_p2p.errors import BacalhauError, ExecutionError
from bacalhau_p2p.executors.interface import MountedInput, RunRequest
from bacalhau_p2p.ipfs.content.content import Content
from bacalhau_p2p.ipfs.store import pin_owners
from bacalhau_p2p.model.base import PeerID, UnixSeconds
from bacalhau_p2p.model.engine_params import environment_of
from bacalhau_p2p.model.execution import Proposal, PublishedResult, RunOutput
from bacalhau_p2p.model.job import InputSource
from bacalhau_p2p.model.partitions import Partition, is_divided, part_of
from bacalhau_p2p.model.usage import Usage
from bacalhau_p2p.runtime.tasks import all_or_first_fault
from bacalhau_p2p.runtime.transfers import Transfer, counted_in
from bacalhau_p2p.storage.interface import PreparedInput, StorageProvider
from bacalhau_p2p.storage.trees import make_readable
from bacalhau_p2p.transports.dial_budget import dialling_for


class InputTransfer(Transfer):
    """The fetching of one input."""

    def __init__(self, size: tuple[int, int] | None) -> None:
        """`size`: its bytes, and how many of them were here before the bid, if that is known."""
        super().__init__()
        self._size = size

    def measured(self, total: int | None) -> None:
        """Take note of its bytes, once it is here."""
        self._size = None if total is None else (total, max(0, total - self.bytes))

    @property
    def progress(self) -> InputProgress:
        """How much of it is here. Blocks and repetitions make what is fetched a little more than its size."""
        if self._size is None:
            return InputProgress(done=self.bytes)
        total, local = self._size
        return InputProgress(done=min(total, local + self.bytes), total=total)

    @property
    def local_bytes(self) -> int | None:
        """How much of it was here, once it is fetched."""
        return None if self._size is None else max(0, self._size[0] - self.bytes)


@dataclass(slots=True)
class Workplace:
    """What one execution occupies on this machine until it is cleaned up."""

    folder: Path
    inputs: list[tuple[StorageProvider, PreparedInput]] = field(default_factory=list)
    """Prepared so far, each with the provider that must clean it up."""
    request: RunRequest | None = None
    """What its executor is asked for, once its inputs are prepared."""
    transfers: list[InputTransfer] = field(default_factory=list)
    """What is fetched of each input."""

    @property
    def hides_from_others(self) -> bool:
        """Whether the umask of this process keeps other users from reading what it makes: a job is one."""
        return self.folder.stat().st_mode & 0o005 != 0o005

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def fetched(self) -> tuple[InputProgress, ...]:
        """How much of the first inputs is here."""
        return tuple([each.progress for each in self.transfers[:MAX_INPUTS_TOLD]])

    def usage(self, result_bytes: int | None = None) -> Usage | None:
        """What the execution has used so far; None before it has run."""
        if self.request is None:
            return None
        meter = self.request.meter
        local = [each.local_bytes for each in self.transfers if each.local_bytes is not None]
        return Usage(
            cpu_seconds=meter.cpu_seconds,
            peak_memory=meter.peak_memory,
            input_bytes_fetched=sum(each.bytes for each in self.transfers) if self.transfers else None,
            input_bytes_local=sum(local) if local else None,
            result_bytes=result_bytes,
            network_bytes_received=meter.network_bytes_received,
            network_bytes_sent=meter.network_bytes_sent,
        )


class Steps:
    """The steps, done by a node's adapters and block store. Each returns what it came to, and raises
    ExecutionError, or whatever an adapter raises."""

    def __init__(
        self,
        adapters: Adapters,
        content: Content,
        *,
        peer_id: PeerID,
        seal: Callable[[PeerID, bytes], bytes],
        clock: Callable[[], UnixSeconds],
        disk_limit: int,
        job_disk: int = 0,
    ) -> None:
        """`seal` encrypts a proposal for its requester. `disk_limit`: bytes of disk for jobs; `job_disk`:
        bytes for one that asks for no amount, 0 for what its engine allows."""
        self.adapters = adapters
        self._content = content
        self._peer_id = peer_id
        self._seal = seal
        self._clock = clock
        self._disk_limit = disk_limit
        self._job_disk = job_disk

    async def prepare(
        self, execution: ComputeExecution, place: Workplace, note: Callable[[str], None]
    ) -> ev.Event:
        """Fetch the inputs, and have the executor get what it needs. It says with `note` what it waits for,
        as a RunRequest has it."""
        if execution.partition >= (count := execution.spec.partitions):
            raise ExecutionError(f"there is no partition {execution.partition} of {count}", permanent=True)
        try:
            place.folder.mkdir()
        except FileExistsError:  # from an earlier process, whose run is gone
            await remove_folder(place.folder)
            place.folder.mkdir()
        place.results.mkdir(mode=0o700)
        inputs: Sequence[MountedInput] = ()
        if execution.spec.task.input_sources:
            (place.folder / "inputs").mkdir(mode=0o700)
            with dialling_for(execution.requester_id):
                inputs = await self._fetch_inputs(execution, place)
        place.request = self._run_request(execution, place, inputs)
        executor = self.adapters.executor(execution.spec.task.engine.type)
        await executor.prepare(replace(place.request, note=note))
        return ev.Prepared(execution.id, expected(executor.outlives_node, bool, "executor"))

    async def run(self, execution: ComputeExecution, place: Workplace) -> ev.Event:
        """Run the job, and add its results folder to the block store."""
        started = self._clock()
        executor = self.adapters.executor(execution.spec.task.engine.type)
        place.request = place.request or self._run_request(execution, place)
        run = await executor.run(place.request)
        output = expected(run, RunOutput, "executor")
        return await self._finished(execution, place, output, started)

    async def reattach(self, execution: ComputeExecution, place: Workplace) -> ev.Event:
        """Go on with a run that outlived an earlier process of this node."""
        executor = self.adapters.executors.get(execution.spec.task.engine.type)
        if executor is None or not place.folder.is_dir():
            return ev.RunVanished(execution.id)
        place.request = self._run_request(execution, place)
        output = await executor.reattach(place.request)
        if output is None:
            return ev.RunVanished(execution.id)
        output = expected(output, RunOutput, "executor")
        return await self._finished(execution, place, output, execution.modified)

    async def publish(self, execution: ComputeExecution, place: Workplace) -> ev.Event:
        """Publish the result that was accepted."""
        config = execution.spec.task.publisher
        publisher = self.adapters.publisher(config.type)
        if execution.result_cid is None:
            raise ExecutionError("there is no result to publish")
        result = await publisher.publish(config, execution.job_id, execution.id, execution.result_cid)
        return ev.Published(execution.id, expected(result, PublishedResult, "publisher"))

    async def _fetch_inputs(self, execution: ComputeExecution, place: Workplace) -> list[MountedInput]:
        sources = execution.spec.task.input_sources
        sizes = execution.input_sizes or (None,) * len(sources)
        # The size of one that is divided is that of its largest part.
        divided = [is_divided(each.source.params) for each in sources]
        place.transfers = [
            InputTransfer(None if part else size) for size, part in zip(sizes, divided, strict=True)
        ]
        fetches = [
            partial(self._fetch_input, execution, place, index, source)
            for index, source in enumerate(sources)
        ]
        return await all_or_first_fault(fetches, BacalhauError, OSError)

    async def _fetch_input(
        self, execution: ComputeExecution, place: Workplace, index: int, source: InputSource
    ) -> MountedInput:
        provider = self.adapters.storage_provider(source.source.type)
        folder = place.folder / "inputs" / str(index)
        folder.mkdir(mode=0o700)
        part = Partition(execution.partition, execution.spec.partitions)
        with counted_in(place.transfers[index]):
            prepared = await provider.prepare(
                source.source.replace(params=part_of(source.source.params, part)),
                folder,
                hints=(execution.requester_id,),
                max_bytes=self._disk_limit if execution.unsized_inputs else execution.reserves.disk,
            )
        expected(prepared, PreparedInput, "storage provider")
        expected(prepared.path, Path, "storage provider")
        place.inputs.append((provider, prepared))
        if is_divided(source.source.params):
            place.transfers[index].measured(await bytes_below(prepared.path))
        if prepared.owned and place.hides_from_others:
            await trio.to_thread.run_sync(make_readable, prepared.path)
        return MountedInput(
            path=prepared.path,
            target=source.target,
            alias=source.alias,
            read_only=prepared.read_only,
            owned=prepared.owned,
            name=expected(prepared.name, str, "storage provider"),
            content=expected(prepared.content, str, "storage provider"),
        )

    async def _finished(
        self, execution: ComputeExecution, place: Workplace, output: RunOutput, started: UnixSeconds
    ) -> ev.Event:
        added = await self._content.add(place.results, pin_owner=pin_owners.execution(execution.id))
        if len(added.root) > MAX_ROOT:
            raise ExecutionError("the results folder has too many entries", permanent=True)
        proposal = Proposal(
            job_id=execution.job_id,
            execution_id=execution.id,
            node_id=self._peer_id,
            result_cid=str(added.cid),
            entries={name: str(cid) for name, cid in added.entries.items()},
            output=output,
            walls=tuple(getattr(self.adapters.executor(execution.spec.task.engine.type), "walls", ())),
            started=started,
            ended=self._clock(),
            usage=place.usage(added.size),
        )
        sealed = self._seal(execution.requester_id, encode_proposal(proposal, added.root))
        return ev.RunFinished(execution.id, proposal.result_cid, sealed, added.size)

    def _run_request(
        self, execution: ComputeExecution, place: Workplace, inputs: Sequence[MountedInput] = ()
    ) -> RunRequest:
        spec = execution.spec
        return RunRequest(
            job_id=execution.job_id,
            execution_id=execution.id,
            engine=spec.task.engine,
            inputs=tuple(inputs),
            result_paths=spec.task.result_paths,
            environment={**environment_of(spec.task), **node_variables(execution, self._peer_id)},
            resources=spec.resources.replace(disk=spec.resources.disk or self._job_disk),
            gpus=execution.gpus,
            network=spec.task.network,
            timeout=spec.execution_timeout,
            deterministic=spec.deterministic,
            work=place.folder / "work",
            results=place.results,
            labels={"requester": execution.requester_id},
        )
