"""Steps run in tasks: one report each, none when stopped, and nothing is left after the clean-up."""

from __future__ import annotations

import gc
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
import trio

from bacalhau_p2p.bprotocol.messages import InputProgress
from bacalhau_p2p.compute import events as ev
from bacalhau_p2p.compute.adapters import Adapters
from bacalhau_p2p.compute.failed_results import FailedResults
from bacalhau_p2p.compute.logs.kept import KeptLogs
from bacalhau_p2p.compute.record import ComputeExecution
from bacalhau_p2p.compute.step_runner import MAX_NOTES, StepRunner
from bacalhau_p2p.compute.steps import InputTransfer, Workplace
from bacalhau_p2p.errors import ExecutorError, StorageError
from bacalhau_p2p.executors.interface import Meter
from bacalhau_p2p.ipfs.store import pin_owners
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.model.state import ComputeState
from bacalhau_p2p.model.usage import Usage
from bacalhau_p2p.storage.interface import PreparedInput
from tests.support.results import result_cid

SPEC = job_from_mapping({"Tasks": [{"Engine": {"Type": "noop"}}]})


def execution(name="e-1", state=ComputeState.PREPARING, spec=SPEC, **fields):
    return ComputeExecution(
        id=ExecutionID(name),
        job_id=JobID("j"),
        requester_id=PeerID("alice"),
        spec=spec,
        state=state,
        created=1.0,
        modified=1.0,
        expires=9.0,
        **fields,
    )


class ScriptedSteps:
    """Each step does what the test says, in the workplace, and answers with Prepared.

    `note` is what the latest preparation was given."""

    def __init__(self, act):
        self.adapters = Adapters(executors={}, storage={}, publishers={})
        self.act = act
        self.run = self.reattach = self.publish = self._step

    async def prepare(self, execution, place, note):
        self.note = note
        return await self._step(execution, place)

    async def _step(self, execution, place):
        place.folder.mkdir()
        (place.folder / "file").write_text("x")
        await self.act(place)
        return ev.Prepared(execution.id)


async def succeed(place):
    await trio.lowlevel.checkpoint()


async def never_end(place):
    await trio.sleep_forever()


class Bench:
    def __init__(self, content, folder, act):
        folder.mkdir()
        self.folder = folder
        self.steps = ScriptedSteps(act)
        self.runner = StepRunner(
            self.steps,
            content,
            folder,
            KeptLogs(folder.with_name("logs"), lambda: 100.0),
            FailedResults(content, lambda: 100.0, disk=10**9),
            self._ask_engine,
        )
        self.reports = []
        self.asked = []
        """The engines that were asked whether they work."""
        self.engine_problem = None

    async def _ask_engine(self, engine):
        self.asked.append(engine)
        return self.engine_problem

    @asynccontextmanager
    async def running(self):
        """The step of `e-1` has begun."""
        async with trio.open_nursery() as nursery:
            self.runner.begin(ev.Prepare(execution()), nursery, self.reports.append)
            await trio.testing.wait_all_tasks_blocked()
            yield
            nursery.cancel_scope.cancel()

    @property
    def left(self):
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def bench(content, tmp_path):
    return lambda act: Bench(content, tmp_path / "executions", act)


async def test_a_step_reports_what_it_came_to_and_keeps_its_workplace(bench):
    bench = bench(succeed)
    async with bench.running():
        pass
    assert (bench.reports, bench.left) == ([ev.Prepared(ExecutionID("e-1"))], ["e-1"])


@pytest.mark.parametrize(
    ("error", "failed"),
    [
        (ExecutorError("no such image", permanent=True), ev.StepFailed("e-1", "no such image", True)),
        (OSError("disk on fire"), ev.StepFailed("e-1", "disk on fire", False)),
        (KeyError("x"), ev.StepFailed("e-1", "KeyError in this node's prepare step: 'x'", False)),
    ],
)
async def test_a_step_that_fails_reports_why_and_leaves_no_files(bench, error, failed):
    async def fail(place):
        raise error

    bench = bench(fail)
    async with bench.running():
        pass
    assert (bench.reports, bench.left) == ([failed], [])


async def test_what_cannot_be_prepared_because_its_engine_has_stopped_is_handed_back(bench):
    async def fail(place):
        raise ExecutorError("connection refused")

    bench = bench(fail)
    bench.engine_problem = "no Docker engine runs at /run/docker.sock"
    async with bench.running():
        pass
    reason = "engine noop stopped working: no Docker engine runs at /run/docker.sock"
    assert (bench.reports, bench.left) == ([ev.EngineStopped("e-1", reason)], [])


async def test_an_engine_is_not_asked_for_an_input_that_cannot_be_fetched(bench):
    async def fail(place):
        raise StorageError("404 Not Found")

    bench = bench(fail)
    async with bench.running():
        pass
    assert (bench.reports, bench.asked) == ([ev.StepFailed("e-1", "404 Not Found", False)], [])


async def test_a_run_that_fails_reports_what_it_used(bench):
    async def fail(place):
        place.request = SimpleNamespace(meter=Meter(cpu_seconds=2.5))
        (place.results / "outputs").mkdir(parents=True)
        (place.results / "outputs" / "file").write_bytes(b"x" * 70)
        raise ExecutorError("killed")

    bench = bench(fail)
    async with bench.running():
        pass
    used = Usage(cpu_seconds=2.5, result_bytes=70)
    assert bench.reports == [ev.StepFailed("e-1", "killed", False, used)]


@pytest.mark.parametrize("asked", [True, False])
async def test_what_a_failed_run_left_is_kept_if_its_job_asks_for_that(bench, content, asked):
    async def fail(place):
        (place.results / "outputs").mkdir(parents=True)
        raise ExecutorError("killed")

    bench = bench(fail)
    paths = [{"Name": "outputs", "Path": "/outputs"}]
    task = {"Engine": {"Type": "noop"}, "ResultPaths": paths}
    spec = job_from_mapping({"Tasks": [task], "KeepFailedResults": asked})
    async with trio.open_nursery() as nursery:
        bench.runner.begin(ev.Run(execution(spec=spec)), nursery, bench.reports.append)
    (failed,) = bench.reports
    pins = [str(pin.cid) for pin in await content.pins()]
    assert ([failed.kept_cid] if asked else []) == pins


async def test_while_inputs_are_fetched_it_reports_how_much_less_and_less_often(bench, autojump_clock):
    async def fetch(place):
        place.transfers = [InputTransfer((300, 0)), InputTransfer(None)]
        for _ in range(300):
            await trio.sleep(0.95)
            place.transfers[0].add(1)

    source = {"Target": "/a", "Source": {"Type": "ipfs", "Params": {"CID": result_cid("input")}}}
    task = {"Engine": {"Type": "noop"}, "InputSources": [source]}
    fetching = execution().replace(spec=job_from_mapping({"Tasks": [task]}))
    bench = bench(fetch)
    async with trio.open_nursery() as nursery:
        bench.runner.begin(ev.Prepare(fetching), nursery, bench.reports.append)
    *updates, prepared = bench.reports
    assert prepared == ev.Prepared(ExecutionID("e-1"))
    assert all(isinstance(update, ev.PreparationTold) for update in updates)
    amounts = [update.inputs[0].done for update in updates]
    assert len(amounts) == 8
    assert amounts == sorted(set(amounts))
    assert updates[0].inputs[1] == InputProgress(done=0)


async def test_what_a_preparation_waits_for_is_told_if_it_takes_long(bench, autojump_clock):
    async def prepare(place):
        bench.steps.note("compiling small.wasm (1 kB)")
        await trio.sleep(0.5)
        bench.steps.note("waiting")
        await trio.sleep(0.9)
        bench.steps.note("compiling app.wasm (26 MB)")
        await trio.sleep(2)
        bench.steps.note("")
        await trio.sleep(2)
        bench.steps.note("pulling image x")  # and then it ends

    bench = bench(prepare)
    async with trio.open_nursery() as nursery:
        bench.runner.begin(ev.Prepare(execution()), nursery, bench.reports.append)
    told = ev.PreparationTold(ExecutionID("e-1"), doing="compiling app.wasm (26 MB)")
    assert bench.reports == [told, ev.Prepared(ExecutionID("e-1"))]


async def test_an_execution_that_waits_for_ever_new_things_tells_of_a_few(bench, autojump_clock):
    async def prepare(place):
        for number in range(100):
            bench.steps.note(f"compiling {number}.wasm")
            await trio.sleep(2)

    bench = bench(prepare)
    async with trio.open_nursery() as nursery:
        bench.runner.begin(ev.Prepare(execution()), nursery, bench.reports.append)
    assert sum(isinstance(each, ev.PreparationTold) for each in bench.reports) == MAX_NOTES


async def test_a_step_that_is_stopped_reports_nothing(bench):
    bench = bench(never_end)
    async with bench.running():
        bench.runner.stop(ExecutionID("e-1"))
        await trio.testing.wait_all_tasks_blocked()
        assert bench.reports == []
        await bench.runner.clean_up(execution())
        assert bench.left == []


async def test_a_step_that_fails_as_it_is_stopped_costs_its_execution_only(bench):
    """The failure and the cancellation arrive in one group."""

    async def fail_when_cancelled(place):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise KeyError("x")

    bench = bench(fail_when_cancelled)
    async with bench.running():
        bench.runner.stop(ExecutionID("e-1"))
        await trio.testing.wait_all_tasks_blocked()
    assert [type(report) for report in bench.reports] == [ev.StepFailed]


async def test_the_clean_up_waits_for_the_step_to_end(bench):
    order = []

    async def end_slowly(place):
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
            order.append("step ended")

    bench = bench(end_slowly)
    async with bench.running():
        bench.runner.stop(ExecutionID("e-1"))
        await bench.runner.clean_up(execution())
        order.append("cleaned up")
    assert order == ["step ended", "cleaned up"]


class Provider:
    def __init__(self, error=None):
        self.error, self.cleaned = error, []

    async def cleanup(self, prepared):
        self.cleaned.append(prepared)
        if self.error is not None:
            raise self.error


async def test_the_clean_up_gives_back_every_input_even_if_a_provider_fails(bench, tmp_path):
    broken, fine = Provider(KeyError("x")), Provider()
    prepared = PreparedInput(path=tmp_path / "input")

    async def take_inputs(place):
        place.inputs += [(broken, prepared), (fine, prepared)]
        await trio.lowlevel.checkpoint()

    bench = bench(take_inputs)
    async with bench.running():
        await bench.runner.clean_up(execution())
    assert (broken.cleaned, fine.cleaned, bench.left) == ([prepared], [prepared], [])


async def test_the_clean_up_removes_what_an_earlier_process_left(bench):
    bench = bench(succeed)
    (bench.folder / "e-1" / "results").mkdir(parents=True)
    (bench.folder / "e-1" / "results" / "stdout").write_text("so far")
    await bench.runner.clean_up(execution(state=ComputeState.CANCELLED))
    assert bench.left == []
    assert bench.runner.logs.folder_of(PeerID("alice"), ExecutionID("e-1")) is not None


async def test_the_clean_up_unpins_the_result(bench, content, tmp_path):
    (tmp_path / "result").write_text("hello\n")
    added = await content.add(tmp_path / "result", pin_owner=pin_owners.execution("e-1"))
    await bench(succeed).runner.clean_up(execution(result_cid=str(added.cid)))
    assert list(await content.pins()) == []


async def test_closing_removes_all_workplaces(bench):
    bench = bench(succeed)
    async with bench.running():
        pass
    await bench.runner.close()
    assert bench.left == []


async def test_leftovers_are_removed_but_for_folders_of_runs_that_may_go_on(bench):
    bench = bench(succeed)
    for name in ("running", "proposed", "unknown"):
        (bench.folder / name).mkdir()
    await bench.runner.remove_leftovers(
        [execution("running", ComputeState.RUNNING), execution("proposed", ComputeState.PROPOSED)]
    )
    assert sorted(bench.left) == [".removed", "running"]


async def test_a_workplace_that_is_cleaned_up_does_not_wait_for_the_garbage_collector(bench):
    """A node that runs a hundred jobs a second would hold some thousand of them."""

    async def keep_the_note(place):
        place.request = SimpleNamespace(note=bench.steps.note)
        await trio.lowlevel.checkpoint()

    bench = bench(keep_the_note)
    gc.collect()
    gc.disable()
    try:
        async with trio.open_nursery() as nursery:
            bench.runner.begin(ev.Prepare(execution()), nursery, bench.reports.append)
        await bench.runner.clean_up(execution())
        places = [each for each in gc.get_objects() if isinstance(each, Workplace)]
        assert bench.folder not in {place.folder.parent for place in places}
    finally:
        gc.enable()
