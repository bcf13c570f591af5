"""Inspects a job before a bid: its inputs, and what the operator's probes say about it.

Each inspection has its own task and its own time limit, and nothing else waits for it. What cannot be found
out in time is unknown; only a policy that needs the answer makes that a refusal.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import trio

from bacalhau_p2p.components.adapter_calls import call_adapter
from bacalhau_p2p.compute.bidding import Findings
from bacalhau_p2p.compute.events import Inspect, Inspected, StopInspection
from bacalhau_p2p.compute.input_inspection import InputInspector
from bacalhau_p2p.compute.probes import Probe
from bacalhau_p2p.errors import ExecutionError
from bacalhau_p2p.model.base import JobID, PeerID
from bacalhau_p2p.runtime.logs import about
from bacalhau_p2p.storage.interface import StorageProvider
from bacalhau_p2p.transports.dial_budget import dialling_for


class Inspector:
    """Inspects jobs for one node. `begin` and `stop` are for the task that drives its machine."""

    def __init__(
        self,
        storage: Mapping[str, StorageProvider],
        *,
        node_id: PeerID,
        local_data_only: bool = False,
        probes: Sequence[Probe] = (),
        resource_shortage: Callable[[int], str | None] = lambda disk: None,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        """`storage` are the providers by source type. With `local_data_only` a job is refused unless all of
        its inputs are local. `resource_shortage` says why this node has no room for inputs that need so
        many bytes of disk."""
        self._inputs = InputInspector(storage, clock)
        self._node_id = node_id
        self._local_data_only = local_data_only
        self._probes = tuple(probes)
        self._resource_shortage = resource_shortage
        self._running: dict[tuple[PeerID, JobID], trio.CancelScope] = {}

    def begin(self, asked: Inspect, nursery: trio.Nursery, report: Callable[[Inspected], None]) -> None:
        """Inspect a job in a task of its own; `report` gets the findings, unless `stop` comes first."""
        scope = self._running[(asked.requester, asked.job_id)] = trio.CancelScope()
        with about(job=asked.job_id):
            nursery.start_soon(self._run, asked, scope, report)

    def stop(self, unwanted: StopInspection) -> None:
        """Cancel an inspection."""
        scope = self._running.pop((unwanted.requester, unwanted.job_id), None)
        if scope is not None:
            scope.cancel()

    async def _run(
        self, asked: Inspect, scope: trio.CancelScope, report: Callable[[Inspected], None]
    ) -> None:
        key = (asked.requester, asked.job_id)
        try:
            with scope, dialling_for(asked.requester):
                report(Inspected(*key, await self._findings(asked), asked.only_if_local))
        finally:
            if self._running.get(key) is scope:
                del self._running[key]

    async def _findings(self, asked: Inspect) -> Findings:
        try:
            return await call_adapter("inspection", partial(self.inspect, asked), job=asked.job_id)
        except ExecutionError as error:
            return Findings(refusal=str(error))

    async def inspect(self, asked: Inspect) -> Findings:
        """Whatever there is to find out, within the time limits of inputs and probes."""
        inputs = asked.spec.task.input_sources
        only_local = self._local_data_only or asked.only_if_local
        if only_local and (refusal := await self._inputs.why_not_local(inputs)) is not None:
            return Findings(refusal=refusal)
        found: list[Findings] = []

        async def add(look: Callable[[], Awaitable[Findings]]) -> None:
            found.append(await look())
            if found[-1].refusal is not None:
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            if inputs:
                measure = partial(
                    self._inputs.measure, inputs, asked.requester, partitions=asked.spec.partitions
                )
                nursery.start_soon(add, measure)
            for probe in self._probes:
                nursery.start_soon(add, lambda probe=probe: self._ask(probe, asked))
        refused = next((each for each in found if each.refusal is not None), None)
        if refused is not None:
            return refused
        disk = sum(each.disk for each in found)
        return Findings(
            shortage=self._resource_shortage(disk) if disk else None,
            input_bytes=sum(each.input_bytes for each in found),
            local_input_bytes=sum(each.local_input_bytes for each in found),
            disk=disk,
            unsized=any(each.unsized for each in found),
            sizes=next((each.sizes for each in found if each.sizes), ()),
        )

    async def _ask(self, probe: Probe, asked: Inspect) -> Findings:
        job = {"ID": asked.job_id, **asked.spec.model_dump(mode="json", by_alias=True)}
        who = {"NodeID": self._node_id, "RequesterID": asked.requester, "JobID": asked.job_id}
        return Findings(refusal=await probe.refusal(json.dumps({**who, "Job": job}).encode()))
