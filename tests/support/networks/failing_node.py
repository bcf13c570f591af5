"""`serve` with a no-op engine whose runs all fail at once."""

from __future__ import annotations

from bacalhau_p2p.cli import main
from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.interface import RunRequest
from bacalhau_p2p.executors.noop import NoopExecutor
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.node import builtin_adapters


class Failing(NoopExecutor):
    async def run(self, request: RunRequest) -> RunOutput:
        await super().run(request)
        raise ExecutorError("this engine is broken")


builtin_adapters.EXECUTORS["noop"] = lambda context: Failing()
main()
