"""One job for each input, on trio and asyncio. Covers `mapping`, `map_run`, `outcomes`, `detached`."""

from __future__ import annotations

import gc
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from bacalhau_p2p.client.client import Client
from bacalhau_p2p.client.results import Result
from bacalhau_p2p.client.specs import docker
from bacalhau_p2p.errors import InvalidJob, JobFailed, JobNotFinished, NodeUnavailable
from bacalhau_p2p.model.execution import Job, RunOutput
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.state import JobState
from tests.support.results import result_cid
from tests.support.servers.fake_node import FakeNode

Run = Callable[[Callable[[], Awaitable[Any]]], Any]


def echo(text: object) -> JobSpec:
    return docker("busybox", "echo", str(text))


def said(job: Job) -> str:
    return str(job.spec.task.engine.params["Parameters"][1])


@pytest.fixture
def echoing(fake_node: FakeNode, tmp_path: Path) -> FakeNode:
    """A node whose jobs end at once with what they echo; `fail` fails and `slow` goes on."""
    (tmp_path / "results").mkdir()

    def end(job: Job) -> None:
        if said(job) == "fail":
            fake_node.set_state(job.id, JobState.FAILED, "it failed")
        elif said(job) == "code":
            fake_node.complete(job.id, tmp_path / "results", RunOutput(exit_code=3))
        elif said(job) != "slow":
            output = RunOutput(stdout=said(job).encode())
            fake_node.complete(job.id, tmp_path / "results", output)

    fake_node.on_submit = end
    return fake_node


def states(node: FakeNode) -> dict[str, str]:
    return {said(job): str(job.state) for job in node.jobs.values()}


def test_results_come_in_the_order_of_the_inputs(run: Run, echoing: FakeNode):
    async def main() -> None:
        async with Client(echoing.url) as client:
            looped = [result.stdout async for result in client.map(echo, range(30), limit=4)]
            awaited = [result.stdout for result in await client.map(echo, range(30))]
        assert looped == awaited == [b"%d" % number for number in range(30)]

    run(main)


def test_no_more_jobs_than_the_limit_are_in_flight(run: Run, fake_node: FakeNode, tmp_path: Path):
    (tmp_path / "results").mkdir()

    async def main() -> None:
        async with Client(fake_node.url) as client:
            outcomes = client.as_completed(echo, range(7), limit=3)
            async with anyio.create_task_group() as group:
                group.start_soon(complete_when, 3)
                assert len(await outcomes) == 7

    def unfinished() -> list[str]:
        return [job.id for job in fake_node.jobs.values() if not job.state.terminal]

    async def complete_when(waiting: int) -> None:
        """Complete all jobs, one after the other, whenever so many are waited for."""
        for number in range(7):
            expected = min(waiting, 7 - number)
            await anyio.to_thread.run_sync(
                fake_node.wait_until,
                lambda expected=expected: fake_node.waiting == len(unfinished()) == expected,
            )
            fake_node.complete(unfinished()[0], tmp_path / "results", RunOutput())

    run(main)


def test_a_job_gets_each_input_at_inputs(run: Run, fake_node: FakeNode, tmp_path: Path):
    (tmp_path / "results").mkdir()
    fake_node.on_submit = lambda job: fake_node.complete(job.id, tmp_path / "results")
    cids = [result_cid("one"), result_cid("two")]

    async def main() -> None:
        async with Client(fake_node.url) as client:
            await client.map(docker("busybox", "ls", "/inputs"), cids)

    run(main)
    inputs = [job.spec.task.input_sources[0] for job in fake_node.jobs.values()]
    assert sorted((each.target, each.source.params["CID"]) for each in inputs) == sorted(
        ("/inputs", cid) for cid in cids
    )


def test_a_function_that_makes_no_job_is_told_to_be_remote(run: Run, echoing: FakeNode):
    async def main() -> None:
        async with Client(echoing.url) as client:
            with pytest.raises(
                InvalidJob, match=r"a value of type int, not a job; .* put @remote above it\n"
            ):
                await client.map(lambda number: number, [1])

    run(main)


def test_the_first_failure_is_raised_with_its_input_and_the_other_jobs_are_stopped(
    run: Run, echoing: FakeNode
):
    async def main() -> None:
        async with Client(echoing.url) as client:
            with pytest.raises(JobFailed, match=r"^it failed\ninput 2: .fail.$"):
                await client.map(echo, ["fine", "slow", "fail"])

    run(main)
    assert states(echoing) == {"fine": "Completed", "slow": "Stopped", "fail": "Failed"}


def test_outcomes_come_as_jobs_end_and_failures_are_values(run: Run, echoing: FakeNode):
    async def main() -> None:
        found = {}
        async with Client(echoing.url) as client:
            async for outcome in client.as_completed(echo, ["a", "fail", "b"]):
                assert outcome.job is not None
                found[outcome.input] = outcome.result.stdout if outcome.ok else str(outcome.error)
                assert outcome.index == ["a", "fail", "b"].index(outcome.input)
        assert found == {"a": b"a", "fail": "it failed", "b": b"b"}

    run(main)


def test_what_ends_first_comes_first(run: Run, echoing: FakeNode):
    async def main() -> None:
        async with Client(echoing.url) as client:
            outcomes = client.as_completed(echo, ["slow", "quick"])
            assert (await anext(outcomes)).input == "quick"
            await outcomes.aclose()

    run(main)


def test_read_makes_a_value_of_each_result(run: Run, echoing: FakeNode):
    async def read(result: Result) -> int:
        return int(result.stdout)

    async def main() -> None:
        async with Client(echoing.url) as client:
            assert await client.map(echo, range(5), read=read) == [0, 1, 2, 3, 4]

    run(main)


def test_inputs_and_jobs_may_be_made_asynchronously(run: Run, echoing: FakeNode):
    async def numbers() -> AsyncIterator[int]:
        for number in range(3):
            yield number

    async def made(number: int) -> JobSpec:
        return echo(number)

    async def main() -> None:
        async with Client(echoing.url) as client:
            assert [result.stdout for result in await client.map(made, numbers())] == [b"0", b"1", b"2"]

    run(main)


def test_an_exit_code_is_a_failure_if_it_is_checked(run: Run, echoing: FakeNode):
    async def main() -> None:
        async with Client(echoing.url) as client:
            assert [result.exit_code for result in await client.map(echo, ["code"])] == [3]
            [outcome] = await client.as_completed(echo, ["code"], check=True)
            assert isinstance(outcome.error, JobFailed)

    run(main)


def test_a_job_that_takes_too_long_is_a_failure_and_is_stopped(run: Run, echoing: FakeNode):
    async def main() -> None:
        async with Client(echoing.url) as client:
            [outcome] = await client.as_completed(echo, ["slow"], timeout=0.01)
            assert isinstance(outcome.error, JobNotFinished)

    run(main)
    assert states(echoing) == {"slow": "Stopped"}


@pytest.mark.parametrize("stop", [True, False])
def test_a_loop_that_is_left_stops_the_jobs_or_leaves_them(run: Run, echoing: FakeNode, *, stop: bool):
    async def main() -> None:
        async with Client(echoing.url) as client:
            async for _ in client.as_completed(echo, ["slow", "quick"], stop=stop):
                break
            gc.collect()

    run(main)
    assert states(echoing)["slow"] == ("Stopped" if stop else "Pending")


def test_a_loop_that_is_cancelled_stops_its_jobs(run: Run, echoing: FakeNode):
    async def main() -> None:
        async with Client(echoing.url) as client:
            results = client.map(echo, ["slow"])
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(cancel_once_it_waits, scope)
                    await anext(results)
            assert scope.cancelled_caught
            await anyio.to_thread.run_sync(echoing.wait_until, lambda: states(echoing)["slow"] == "Stopped")

    async def cancel_once_it_waits(scope: anyio.CancelScope) -> None:
        await anyio.to_thread.run_sync(echoing.wait_until, lambda: echoing.waiting == 1)
        scope.cancel()

    run(main)


def test_a_function_that_fails_while_its_map_is_closed_is_the_error_of_the_map(run: Run, echoing: FakeNode):
    waiting, raised = 0, []

    async def make(number: int) -> JobSpec:
        nonlocal waiting
        waiting += 1
        try:
            await anyio.sleep_forever()
        finally:
            if number == 7:
                raise ValueError("while it was cancelled")
        raise AssertionError("it sleeps forever")

    async def main() -> None:
        async with Client(echoing.url) as client, anyio.create_task_group() as group:
            outcomes = client.as_completed(make, range(16), limit=16)

            async def take() -> None:
                try:
                    await anext(outcomes)
                except BaseException as error:  # noqa: BLE001 - a nursery would swallow a cancellation
                    raised.append(repr(error))

            group.start_soon(take)
            while waiting < 16:
                await anyio.lowlevel.checkpoint()
            await outcomes.aclose()

    run(main)
    assert raised == ["ValueError('while it was cancelled')"]


def test_a_job_whose_submission_is_interrupted_is_stopped_too(run: Run, fake_node: FakeNode):
    submitted, answer = threading.Event(), threading.Event()

    def hold(job: Job) -> None:
        submitted.set()
        answer.wait(20)

    fake_node.on_submit = hold

    async def main() -> None:
        async with Client(fake_node.url) as client:
            outcomes = client.as_completed(echo, ["slow"])
            async with anyio.create_task_group() as group:
                group.start_soon(leave, outcomes)
                with pytest.raises(StopAsyncIteration):
                    await anext(outcomes)

    async def leave(outcomes: Any) -> None:
        await anyio.to_thread.run_sync(submitted.wait, 20)
        async with anyio.create_task_group() as group:
            group.start_soon(outcomes.aclose)
            answer.set()

    run(main)
    assert states(fake_node) == {"slow": "Stopped"}


def test_an_invalid_job_is_the_failure_of_its_input(run: Run, echoing: FakeNode):
    async def main() -> None:
        async with Client(echoing.url) as client:
            bad, good = await client.as_completed(
                lambda image: docker(image, "echo", "x"), ["No!", "busybox"]
            )
            assert isinstance(bad.error, InvalidJob)
            assert bad.job is None
            assert good.ok
            with pytest.raises(InvalidJob):
                client.map({"Tasks": []}, ["x"])

    run(main)


def test_an_error_of_the_users_own_function_ends_the_map_as_it_is(run: Run, echoing: FakeNode):
    def odd(number: int) -> JobSpec:
        raise ZeroDivisionError("mine")

    async def main() -> None:
        async with Client(echoing.url) as client:
            with pytest.raises(ZeroDivisionError, match=r"^mine$"):
                await client.map(odd, [1, 2])

    run(main)


def test_a_node_that_cannot_be_reached_ends_the_map(run: Run, unused_url: str):
    async def main() -> None:
        async with Client(unused_url) as client:
            with pytest.raises(NodeUnavailable, match="no node listens"):
                await client.as_completed(echo, [1, 2])

    run(main)


def test_a_map_of_nothing_is_empty_and_a_limit_of_nothing_is_an_error(run: Run, echoing: FakeNode):
    async def main() -> None:
        async with Client(echoing.url) as client:
            assert await client.map(echo, []) == []
            with pytest.raises(ValueError, match=r"^limit must be at least 1, not 0$"):
                client.map(echo, [], limit=0)

    run(main)
