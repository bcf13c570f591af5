"""Checks a job at its submission, with this node's own adapters."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio

from bacalhau_p2p.components.adapter_calls import adapter_errors, call_adapter, expected_faults
from bacalhau_p2p.errors import ExecutionError, Fault
from bacalhau_p2p.model.job import InputSource, JobSpec
from bacalhau_p2p.model.validation import network_faults, size_faults
from bacalhau_p2p.runtime.logs import get_logger
from bacalhau_p2p.storage.interface import StorageProvider
from bacalhau_p2p.verifiers.interface import Verifier

log = get_logger(__name__)

INPUT_TIMEOUT = 2.0
"""Seconds for all inputs of a job. Compute nodes check them again, so a submission need not wait longer."""


class JobChecks:
    """Finds what is wrong with a job before it is accepted."""

    def __init__(
        self,
        type_faults: Callable[[JobSpec], list[Fault]],
        verifiers: Mapping[str, Verifier],
        storage: Mapping[str, StorageProvider],
    ) -> None:
        """`type_faults` finds types that nobody in the network has. Verifiers and storage providers are those
        of this node, by type."""
        self._type_faults = type_faults
        self._verifiers = verifiers
        self._storage = storage

    async def faults(self, spec: JobSpec) -> list[Fault]:
        """All faults, by their paths in the job. An adapter that fails or takes too long finds none."""
        found = self._type_faults(spec)
        verifier = self._verifiers.get(spec.verifier.type)
        if verifier is not None:
            found += _faults_by(verifier, spec)
        found += network_faults(spec) + size_faults(spec)
        if spec.task.input_sources:
            found += await self._input_faults(spec)
        return found

    async def _input_faults(self, spec: JobSpec) -> list[Fault]:
        by_input: dict[int, list[Fault]] = {}

        async def check(index: int, source: InputSource) -> None:
            by_input[index] = await self._faults_of(index, source)

        with trio.move_on_after(INPUT_TIMEOUT):
            async with trio.open_nursery() as nursery:
                for index, source in enumerate(spec.task.input_sources):
                    nursery.start_soon(check, index, source)
        return [fault for index in sorted(by_input) for fault in by_input[index]]

    async def _faults_of(self, index: int, source: InputSource) -> list[Fault]:
        """What every node would find wrong with this input. The nodes that run the job have their own
        settings, so a fault of this node only does not count."""
        config, provider = source.source, self._storage.get(source.source.type)
        if provider is None:
            return []

        async def ask(provider: StorageProvider = provider) -> list[Fault]:
            found = expected_faults(provider.faults(config), "check of an input")
            return found or expected_faults(await provider.input_faults(config), "check of an input")

        try:
            found = await call_adapter("check of an input", ask, source=config.type)
        except ExecutionError as error:
            log.info("input_not_checked", source=config.type, reason=str(error))
            return []
        path = f"Tasks[0].InputSources[{index}].Source"
        return [Fault(f"{path}.{f.path}", f.problem) for f in found if not f.this_node_only]


def _faults_by(verifier: Verifier, spec: JobSpec) -> list[Fault]:
    try:
        with adapter_errors("check by a verifier"):
            return expected_faults(verifier.faults(spec), "check by a verifier")
    except ExecutionError as error:
        return [Fault("Verifier", str(error))]
