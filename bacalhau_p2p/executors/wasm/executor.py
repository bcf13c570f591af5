"""The WebAssembly executor: WASI programs, each in a process of its own, on wasmtime."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import trio

from bacalhau_p2p.errors import ExecutorError, Fault, InvalidJob, RunTimedOut
from bacalhau_p2p.executors.interface import STREAM_LIMIT, Executor, RunRequest
from bacalhau_p2p.executors.output_limits import OutputLimits, Outputs, take_outputs, watch_outputs
from bacalhau_p2p.executors.results import ResultsFolder, write_failed
from bacalhau_p2p.executors.wasm.compiler import ModuleCompiler
from bacalhau_p2p.executors.wasm.failure import run_failed, used_up_cpu
from bacalhau_p2p.executors.wasm.modules import LocatedModule, check_component, is_component, locate
from bacalhau_p2p.executors.wasm.mounts import Mounts, plan_mounts
from bacalhau_p2p.executors.wasm.processes import Processes
from bacalhau_p2p.executors.wasm.streams import Pipes, drain
from bacalhau_p2p.model.engine_params import WasmParams
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.validation import param_faults, read_params
from bacalhau_p2p.runtime.tasks import all_or_first_fault

LEAST_CPU_SECONDS = 10
"""Seconds of CPU time that every job has."""
UNRESERVED_NICENESS = 10
"""For jobs that reserved no CPU: as for 0.1 cores."""
LOAD_ATTEMPTS = 2
"""How often a run starts for each module: one that was changed on disk is compiled again once."""


class WasmExecutor(Executor):
    """Runs WASI preview 1 modules.

    A module that traps has run: its exit code is 134, and the trap is the end of its stderr.
    """

    def __init__(self, cache: Path, *, stream_limit: int = STREAM_LIMIT) -> None:
        """`cache` is a folder for compiled modules, this executor's own; `stream_limit` the bytes of
        stdout, and of stderr, that are kept."""
        self._stream_limit = stream_limit
        self._processes = Processes()
        self._compiler = ModuleCompiler(cache, self._processes)

    @property
    def engine(self) -> str:
        return "wasm"

    @property
    def walls(self) -> tuple[str, ...]:
        """Known once the warm process has started. See `isolation.walls` for what the names mean."""
        return self._processes.walls

    async def unavailable(self) -> str | None:
        """Starts the warm process if it does not run: only that shows that wasmtime works here."""
        try:
            self._compiler.open()
            await self._processes.warm_up()
        except ExecutorError as error:
            return str(error)
        except OSError as error:
            return f"the folder for compiled modules cannot be used: {error}"
        return None

    def network_problem(self, network: str) -> str | None:
        return "WebAssembly jobs have no network"

    def faults(self, engine: SpecConfig) -> list[Fault]:
        return param_faults(WasmParams, engine)

    async def prepare(self, request: RunRequest) -> None:
        """Find the modules among the inputs, and compile new ones.

        Raises ExecutorError. Cancelled: the compiling process has ended.
        """
        modules = _modules(_usable_params(request.engine), request)
        await self._described(modules, request, note=request.note)

    async def run(self, request: RunRequest) -> RunOutput:
        """As `Executor.run`. A missing entry point or import is an ExecutorError, permanent."""
        params = _usable_params(request.engine)
        modules = _modules(params, request)
        used = {id(module.source) for module in modules if not module.source.path.is_dir()}
        shown = [source for source in request.inputs if id(source) not in used]
        limits = OutputLimits.of_disk(request.resources.disk)
        stream_limit = min(self._stream_limit, limits.size)
        with ResultsFolder(request.results, request.result_paths, limit=stream_limit) as results:
            try:
                mounts = plan_mounts(shown, results.outputs, request.work)
            except OSError as error:
                raise write_failed(error) from error
            for _ in range(LOAD_ATTEMPTS * len(modules)):
                described = await self._described(modules, request)
                spec = run_spec(params, request, described, mounts)
                report = await self._run_process(spec, results, mounts.outputs, limits, request)
                if report is None:
                    raise request.timed_out()
                if used_up_cpu(report, spec["cpu_seconds"]):
                    raise RunTimedOut(
                        f"the job used more than the {spec['cpu_seconds']} s of CPU it reserved"
                    )
                if "exit" in report:
                    streams = results.stdout.kept + results.stderr.kept
                    mounts.layout.remove_mount_points()
                    left_out = await take_outputs(mounts.outputs, limits, streams=streams)
                    return results.finish(report["exit"], left_out)
                if "stale" not in report:
                    raise run_failed(report, "running the job", stopping=self._processes.closed)
                if report["stale"] in {each["key"] for each in described}:
                    self._compiler.discard(report["stale"])
            raise ExecutorError("the compiled module cannot be loaded on this node")

    async def aclose(self) -> None:
        await self._processes.aclose()

    async def _described(
        self,
        modules: Sequence[LocatedModule],
        request: RunRequest,
        *,
        note: Callable[[str], None] = lambda doing: None,
    ) -> Sequence[Mapping[str, Any]]:
        deterministic = request.deterministic
        return [
            await self._compiler.describe(each, deterministic=deterministic, note=note) for each in modules
        ]

    async def _run_process(
        self,
        spec: Mapping[str, Any],
        results: ResultsFolder,
        outputs: Outputs,
        limits: OutputLimits,
        request: RunRequest,
    ) -> Mapping[str, Any] | None:
        """The report of the process, None after the timeout; all its output is in the results by then.

        Raises TooMuchOutput as soon as there is more than `limits` allow.
        """
        report: Mapping[str, Any] | None = None
        pipes, watching = Pipes(), trio.CancelScope()
        try:
            async with self._processes.process(spec, *pipes.writers) as process:
                pipes.close_writers()

                async def wait() -> None:
                    nonlocal report
                    with trio.move_on_after(request.timeout):
                        report = await process.report()
                    await process.kill()  # which closes the pipes
                    watching.cancel()

                async def watch() -> None:
                    with watching:
                        await watch_outputs(
                            outputs, limits, lambda: results.stdout.kept + results.stderr.kept
                        )

                stdout, stderr = pipes.readers
                try:
                    await all_or_first_fault(
                        [
                            wait,
                            watch,
                            lambda: drain(stdout, results.stdout),
                            lambda: drain(stderr, results.stderr),
                        ],
                        ExecutorError,
                    )
                finally:
                    await process.end()
                    request.meter.add_process(*process.used)
        finally:
            pipes.close()
        return report


def _usable_params(engine: SpecConfig) -> WasmParams:
    try:
        return read_params(WasmParams, engine)
    except InvalidJob as error:
        raise ExecutorError("; ".join(map(str, error.faults)), permanent=True) from None


def _modules(params: WasmParams, request: RunRequest) -> Sequence[LocatedModule]:
    """The import modules, then the entry module. Raises ExecutorError."""
    modules = [locate(name, request.inputs) for name in (*params.import_modules, params.entry_module)]
    if any(map(is_component, modules)):
        check_component(
            modules[-1],
            alone=len(modules) == 1,
            entrypoint=params.entrypoint,
            deterministic=request.deterministic,
        )
    return modules


def run_spec(
    params: WasmParams, request: RunRequest, modules: Sequence[Mapping[str, Any]], mounts: Mounts
) -> dict[str, Any]:
    """The spec for the process of a run."""
    environment = {**request.environment, **params.environment_variables}
    return {
        "op": "run",
        "modules": modules,
        "entrypoint": params.entrypoint,
        "component": modules[-1]["component"],
        "argv": [modules[-1]["name"], *params.parameters],
        "env": sorted(environment.items()),
        "preopens": mounts.preopens,
        "links": mounts.links,
        "outputs": [str(folder) for folder in mounts.outputs.folders],
        "memory": request.resources.memory,
        "disk": OutputLimits.of_disk(request.resources.disk).size,
        "cpu_seconds": cpu_seconds(request.resources.cpu, request.timeout),
        "niceness": niceness(request.resources.cpu),
        "deterministic": request.deterministic,
    }


def cpu_seconds(cpu: float, timeout: float) -> int:
    """Seconds of CPU time for a job that reserved this many cores; 0, no limit, when it reserved none."""
    return max(LEAST_CPU_SECONDS, math.ceil(cpu * timeout)) if cpu else 0


def niceness(cpu: float) -> int:
    """How nice the process of such a job is: when there is not enough for all, the kernel shares the CPU by
    what was reserved. Each step is a factor of 1.25."""
    if not cpu:
        return UNRESERVED_NICENESS
    return max(0, min(19, round(math.log(1 / cpu, 1.25))))
