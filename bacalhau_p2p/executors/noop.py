"""The no-op executor: runs nothing, and leaves a results folder as every engine does."""

from __future__ import annotations

import trio

from bacalhau_p2p.errors import ExecutorError, Fault
from bacalhau_p2p.executors.interface import Executor, RunRequest
from bacalhau_p2p.executors.results import ResultsFolder
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.model.job import SpecConfig


class NoopExecutor(Executor):
    """Returns at once the result that the job specifies. Measures everything but the job itself.

    Engine parameters, each optional: `ExitCode` (0 to 255), `Stdout` and `Stderr` (text).
    """

    @property
    def engine(self) -> str:
        return "noop"

    async def unavailable(self) -> str | None:
        return None

    def network_problem(self, network: str) -> str | None:
        return "it runs nothing"

    def faults(self, engine: SpecConfig) -> list[Fault]:
        """What is wrong with these engine parameters, by path; unknown ones are ignored."""
        found = []
        code = engine.params.get("ExitCode", 0)
        if isinstance(code, bool) or not isinstance(code, int) or not 0 <= code <= 255:
            found.append(Fault("Params.ExitCode", "must be a number from 0 to 255"))
        found.extend(
            Fault(f"Params.{name}", "must be text")
            for name in ("Stdout", "Stderr")
            if not isinstance(engine.params.get(name, ""), str)
        )
        return found

    async def prepare(self, request: RunRequest) -> None:
        """Does nothing."""
        await trio.lowlevel.checkpoint()

    async def run(self, request: RunRequest) -> RunOutput:
        """Leave the results folder; takes no thread, and too little time for a timeout.

        Raises ExecutorError, permanent, when the parameters have faults.
        """
        await trio.lowlevel.checkpoint()
        if found := self.faults(request.engine):
            raise ExecutorError("; ".join(map(str, found)), permanent=True)
        params = request.engine.params
        request.meter.add_process(0.0, 0)
        with ResultsFolder(request.results, request.result_paths) as results:
            if stdout := params.get("Stdout"):
                results.stdout.write(stdout.encode("utf-8", "surrogatepass"))
            if stderr := params.get("Stderr"):
                results.stderr.write(stderr.encode("utf-8", "surrogatepass"))
            return results.finish(params.get("ExitCode", 0))

    async def aclose(self) -> None:
        """Does nothing: no process runs."""
        await trio.lowlevel.checkpoint()
