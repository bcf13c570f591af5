"""`serve` with a no-op engine that returns another output than an honest one."""

from __future__ import annotations

from bacalhau_p2p.cli import main
from bacalhau_p2p.executors.interface import RunRequest
from bacalhau_p2p.executors.noop import NoopExecutor
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.node import builtin_adapters


class Liar(NoopExecutor):
    async def run(self, request: RunRequest) -> RunOutput:
        output = await super().run(request)
        (request.results / "stdout").write_bytes(b"lie\n")
        return output


builtin_adapters.EXECUTORS["noop"] = lambda context: Liar()
main()
