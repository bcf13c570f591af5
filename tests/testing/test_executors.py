"""The conformance suite for executors (`executors.kit`, `executors.results`, `executors.lifetimes`, and
`executors.background`) fails for executors that break a promise."""

from __future__ import annotations

import os

import pytest
import trio

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.interface import Executor
from bacalhau_p2p.executors.results import ResultsFolder
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.testing.executors import EXECUTOR_CHECKS, ExecutorKit, Program

CHECKS = {check.__name__.removeprefix("check_"): check for check in EXECUTOR_CHECKS}


class FunctionPrograms:
    """Programs for `FunctionExecutor`: a verb and its arguments."""

    def __getattr__(self, verb):
        def make(*arguments) -> Program:
            return Program(engine=SpecConfig(type="function", params={"Verb": verb, "Arguments": arguments}))

        return make


class FunctionExecutor(Executor):
    """Runs some of the programs in this process."""

    engine = "function"

    async def unavailable(self):
        return None

    def faults(self, engine):
        return []

    async def prepare(self, request):
        await trio.lowlevel.checkpoint()

    async def run(self, request):
        with ResultsFolder(request.results, request.result_paths) as results:
            verb = getattr(self, request.engine.params["Verb"])
            return results.finish(await verb(request, results, *request.engine.params["Arguments"]))

    async def exit_with(self, request, results, code):
        await trio.lowlevel.checkpoint()
        return code

    async def say(self, request, results, stdout, stderr):
        await trio.lowlevel.checkpoint()
        results.stdout.write(stdout.encode())
        results.stderr.write(stderr.encode())
        return 0

    async def hold(self, request, results, path):
        pipe = os.open(request.inputs[0].path / "alive", os.O_RDWR)
        try:
            await trio.sleep_forever()
        finally:
            os.close(pipe)

    spin = hold

    async def aclose(self):
        await trio.lowlevel.checkpoint()


class ChangesExitCodes(FunctionExecutor):
    async def exit_with(self, request, results, code):
        return code % 128


class MixesStreams(FunctionExecutor):
    async def say(self, request, results, stdout, stderr):
        return await super().say(request, results, stderr, stdout)


class LeavesRunsBehind(FunctionExecutor):
    def __init__(self) -> None:
        self.left: list[int] = []

    async def hold(self, request, results, path):
        self.left.append(os.open(request.inputs[0].path / "alive", os.O_RDWR))
        await trio.sleep_forever()

    spin = hold


class TimesOutWithAnotherError(FunctionExecutor):
    async def run(self, request):
        with trio.move_on_after(request.timeout):
            await super().run(request)
        raise ExecutorError("it took too long")


async def run(executor, check, tmp_path):
    await CHECKS[check](ExecutorKit(executor=executor, programs=FunctionPrograms(), folder=tmp_path))


@pytest.mark.parametrize(
    "check", ["exit_codes_are_results", "streams_are_kept_apart", "cancelled_run_leaves_nothing_running"]
)
async def test_an_executor_that_keeps_a_promise_passes(check, tmp_path):
    await run(FunctionExecutor(), check, tmp_path)


@pytest.mark.parametrize(
    ("executor", "check"),
    [
        (ChangesExitCodes, "exit_codes_are_results"),
        (MixesStreams, "streams_are_kept_apart"),
        (LeavesRunsBehind, "cancelled_run_leaves_nothing_running"),
        (TimesOutWithAnotherError, "time_out_ends_the_run"),
        (FunctionExecutor, "closing_ends_what_runs"),
    ],
)
async def test_a_broken_executor_fails(executor, check, tmp_path):
    broken = executor()
    with pytest.raises((AssertionError, ExceptionGroup)):
        await run(broken, check, tmp_path)
    for pipe in getattr(broken, "left", ()):
        os.close(pipe)
