"""`serve` with a no-op engine that leaves 1,500 nested folders in the results folder."""

from __future__ import annotations

from bacalhau_p2p.cli import main
from bacalhau_p2p.executors.interface import RunRequest
from bacalhau_p2p.executors.noop import NoopExecutor
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.node import builtin_adapters
from tests.support.folders import nest


class Nesting(NoopExecutor):
    async def run(self, request: RunRequest) -> RunOutput:
        output = await super().run(request)
        nest(request.results, 1500)
        return output


builtin_adapters.EXECUTORS["noop"] = lambda context: Nesting()
main()
