"""How runs end, by themselves and otherwise, beside others."""

from __future__ import annotations

import trio

from bacalhau_p2p.errors import RunTimedOut
from bacalhau_p2p.model.job import ResultPath
from bacalhau_p2p.testing.executors.background import Pipe, running
from bacalhau_p2p.testing.executors.kit import ExecutorKit


async def check_cancelled_run_leaves_nothing_running(kit: ExecutorKit) -> None:
    """When a cancelled `run` returns, the job has ended: one that sleeps and one that uses the CPU."""
    for kind in ("hold", "spin"):
        pipe = Pipe(kit)
        request = kit.request(getattr(kit.programs, kind)(pipe.inside), inputs=[pipe.mount])
        async with running(kit, request, pipe) as run:
            run.cancel()
            await run.ended.wait()
            assert not pipe.held, f"the program `{kind}` still runs"
        assert run.error is None, run.error


async def check_time_out_ends_the_run(kit: ExecutorKit) -> None:
    """After `timeout` seconds RunTimedOut is raised, and the job has ended."""
    for kind in ("hold", "spin"):
        pipe = Pipe(kit)
        request = kit.request(getattr(kit.programs, kind)(pipe.inside), inputs=[pipe.mount], timeout=3)
        begun = trio.current_time()
        async with running(kit, request, pipe) as run:
            await run.ended.wait()
            assert not pipe.held, f"the program `{kind}` still runs"
        assert isinstance(run.error, RunTimedOut), run.error or run.output
        assert trio.current_time() - begun >= 3, "it ended before its timeout"


async def check_concurrent_runs_do_not_mix(kit: ExecutorKit) -> None:
    """Concurrent runs have their own inputs and leave their own results."""

    async def run_one(number: int) -> None:
        text = f"only of run {number}"
        request = kit.request(
            kit.programs.copy("/inputs/a.txt", "/outputs/a.txt"),
            inputs=[kit.input_folder("/inputs", {"a.txt": text})],
            result_paths=[ResultPath(name="outputs", path="/outputs")],
        )
        output = await kit.run(request)
        assert output.exit_code == 0, output
        assert (request.results / "outputs" / "a.txt").read_text() == text
        request = kit.request(kit.programs.say(text, text[::-1]))
        output = await kit.run(request)
        assert (output.stdout, output.stderr) == (text.encode(), text[::-1].encode()), output

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(run_one, number)


async def check_one_cancelled_run_does_not_harm_another(kit: ExecutorKit) -> None:
    """Cancelling one of two runs ends only that one."""
    first, second = Pipe(kit), Pipe(kit)
    requests = [kit.request(kit.programs.hold(p.inside), inputs=[p.mount]) for p in (first, second)]
    async with running(kit, requests[1], second), running(kit, requests[0], first) as run:
        run.cancel()
        await run.ended.wait()
        assert not first.held
        assert second.held, "the other run was ended too"


async def check_closing_ends_what_runs(kit: ExecutorKit) -> None:
    """When `aclose` returns, no job of the executor runs; a second `aclose` does nothing.

    The kit's executor cannot be used afterwards.
    """
    pipe = Pipe(kit)
    request = kit.request(kit.programs.hold(pipe.inside), inputs=[pipe.mount])
    async with running(kit, request, pipe) as run:
        await kit.executor.aclose()
        assert not pipe.held, "the program still runs"
        await run.ended.wait()
    assert run.output is None, f"an interrupted run gave a result: {run.output}"
    await kit.executor.aclose()
