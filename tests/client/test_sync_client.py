"""The blocking client is the async one for scripts. Covers `sync_client`, `sync_jobs`, `portal`."""

from __future__ import annotations

import csv
import inspect
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bacalhau_p2p.client.client import Client
from bacalhau_p2p.client.jobs import JobHandle
from bacalhau_p2p.client.outcomes import Outcome
from bacalhau_p2p.client.results import Result
from bacalhau_p2p.client.specs import docker
from bacalhau_p2p.client.sync_client import SyncClient
from bacalhau_p2p.client.sync_jobs import SyncJobHandle, SyncOutcome, SyncResult
from bacalhau_p2p.errors import JobFailed, UnknownJob
from bacalhau_p2p.model.base import ExecutionID
from bacalhau_p2p.model.execution import Job, RunOutput
from bacalhau_p2p.model.history import EventKind
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.logs import LogPiece, LogStream
from bacalhau_p2p.model.state import JobState
from tests.support.servers.fake_node import FakeNode

NOOP = {"Tasks": [{"Engine": {"Type": "noop"}}]}
TABLE = "word,count\nwhale,1200\n"


def echo(text: object) -> JobSpec:
    return docker("busybox", "echo", str(text))


@pytest.fixture
def echoing(fake_node: FakeNode, tmp_path: Path) -> FakeNode:
    """A node whose jobs end at once with what they echo; `fail` fails and `slow` goes on."""
    folder = tmp_path / "results"
    (folder / "outputs").mkdir(parents=True)
    (folder / "outputs" / "table.csv").write_text(TABLE)

    def end(job: Job) -> None:
        words = job.spec.task.engine.params.get("Parameters", ["echo", ""])
        if words[1] == "fail":
            fake_node.set_state(job.id, JobState.FAILED, "it failed")
        elif words[1] != "slow":
            fake_node.complete(job.id, folder, RunOutput(stdout=words[1].encode()))

    fake_node.on_submit = end
    return fake_node


def parameters(function: Callable[..., object]) -> list[tuple[str, object]]:
    found = inspect.signature(function).parameters.values()
    return [(parameter.name, parameter.default) for parameter in found]


@pytest.mark.parametrize(
    ("twin", "of"),
    [(SyncClient, Client), (SyncJobHandle, JobHandle), (SyncResult, Result), (SyncOutcome, Outcome)],
)
def test_both_clients_have_the_same_methods_with_the_same_parameters(twin: type, of: type):
    def public(kind: type) -> set[str]:
        names = {name for name in dir(kind) if not name.startswith("_")}
        return names | set(kind.__annotations__) | set(inspect.getattr_static(kind, "__slots__", ()))

    ours = {name for name in public(twin) if not name.startswith("_")} - {"id", "close", "url"}
    theirs = {name for name in public(of) if not name.startswith("_")} - {"aclose", "id", "url"}
    assert ours >= {name for name in theirs if callable(getattr(of, name, None))}
    for name in ours & theirs:
        method = getattr(of, name)
        if inspect.isfunction(method) and inspect.isfunction(getattr(twin, name)):
            assert parameters(getattr(twin, name)) == parameters(method), name


def test_a_job_is_submitted_and_its_result_read(echoing: FakeNode, tmp_path: Path):
    with SyncClient(echoing.url) as client:
        job = client.submit(echo("hello"))
        assert client.job(job.id).status().state is JobState.COMPLETED
        assert [each.id for each in client.jobs()] == [job.id]
        assert len(client.nodes()) == len(job.executions()) == 1
        result = job.wait_result(timeout=20)
        (same,) = job.results(timeout=20)
        assert (same.cid, same.partition, same.node) == (result.cid, 0, result.executions[0].node_id)
        assert (result.stdout, result.exit_code) == (b"hello", 0)
        assert result.read("outputs/table.csv") == TABLE.encode()
        result.fetch(tmp_path / "fetched")
        assert (tmp_path / "fetched" / "outputs" / "table.csv").read_text() == TABLE
        cid = client.add(tmp_path / "fetched")
        assert client.fetch(cid, tmp_path / "again") == tmp_path / "again"


def test_a_file_of_a_result_is_a_file(echoing: FakeNode):
    with SyncClient(echoing.url) as client:
        result = client.submit(NOOP).wait_result()
        with result.open("outputs/table.csv") as file:
            rows = list(csv.DictReader(io.TextIOWrapper(file)))
    assert rows == [{"word": "whale", "count": "1200"}]


def test_events_and_logs_are_iterated(fake_node: FakeNode):
    job = fake_node.add_job("some-job")
    fake_node.logs[job.id] = [LogPiece(ExecutionID("e-1"), LogStream.STDOUT, 0, b"hello")]
    fake_node.tell(job.id, EventKind.SUBMITTED, "")
    fake_node.tell(job.id, EventKind.ENDED, "")
    fake_node.set_state(job.id, JobState.COMPLETED)
    with SyncClient(fake_node.url) as client:
        handle = client.job(job.id)
        assert [event.kind for event in handle.events()] == [EventKind.SUBMITTED, EventKind.ENDED]
        assert [piece.data for piece in handle.logs(follow=True)] == [b"hello"]


def test_maps_give_results_in_order_or_outcomes_as_they_come(echoing: FakeNode):
    with SyncClient(echoing.url) as client:
        assert [result.stdout for result in client.map(echo, range(3))] == [b"0", b"1", b"2"]
        assert list(client.map(echo, "ab", read=lambda result: result.read("outputs/table.csv")[:4])) == [
            b"word",
            b"word",
        ]
        outcomes = {outcome.input: outcome for outcome in client.as_completed(echo, ["a", "fail"])}
        assert outcomes["a"].result.stdout == b"a"
        assert isinstance(outcomes["fail"].error, JobFailed)
        assert outcomes["fail"].job is not None
        assert outcomes["fail"].job.status().state is JobState.FAILED
        with pytest.raises(JobFailed):
            list(client.map(echo, ["fail"]))


def test_the_function_that_makes_a_job_may_use_the_client(echoing: FakeNode, tmp_path: Path):
    (tmp_path / "data").write_text("data")
    with SyncClient(echoing.url) as client:

        def job(text: str) -> JobSpec:
            return docker("busybox", "echo", text, inputs={"/inputs": client.add(tmp_path / "data")})

        assert [result.stdout for result in client.map(job, "xy")] == [b"x", b"y"]


def test_a_map_that_is_left_is_stopped(echoing: FakeNode):
    with SyncClient(echoing.url) as client:
        for outcome in client.as_completed(echo, ["slow", "quick"]):
            assert outcome.input == "quick"
            break
    assert sorted(str(job.state) for job in echoing.jobs.values()) == ["Completed", "Stopped"]


def test_several_threads_may_use_one_client(echoing: FakeNode):
    with SyncClient(echoing.url) as client, ThreadPoolExecutor(8) as pool:
        results = pool.map(lambda number: client.submit(echo(number)).wait_result().stdout, range(40))
        assert list(results) == [b"%d" % number for number in range(40)]


def test_a_forked_process_is_refused(echoing: FakeNode):
    context = multiprocessing.get_context("fork")
    with SyncClient(echoing.url) as client:
        client.nodes()
        said = context.Queue()

        def use() -> None:
            try:
                client.nodes()
            except RuntimeError as error:
                said.put(str(error))

        process = context.Process(target=use)
        process.start()
        assert said.get(timeout=30) == "this client was made in another process: make one in each process"
        process.join()
        assert len(client.nodes()) == 1


def test_a_closed_client_says_so_and_leaves_no_thread(echoing: FakeNode):
    before = set(threading.enumerate())
    client = SyncClient(echoing.url)
    with pytest.raises(UnknownJob):
        client.job("absent")
    client.close()
    client.close()
    ours = [each for each in set(threading.enumerate()) - before if each.name == "bacalhau_p2p client"]
    assert ours == []
    with pytest.raises(RuntimeError, match=r"^this client is closed$"):
        client.nodes()


def test_a_script_that_closes_nothing_ends(echoing: FakeNode):
    script = f"from bacalhau_p2p import SyncClient; print(len(SyncClient({echoing.url!r}).nodes()))"
    done = subprocess.run(
        [sys.executable, "-c", script], timeout=60, check=True, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_ctrl_c_ends_a_wait_and_leaves_the_job(fake_node: FakeNode):
    script = f"""
from bacalhau_p2p import SyncClient
with SyncClient({fake_node.url!r}) as client:
    client.submit({NOOP!r}).wait()
"""
    assert interrupted(script, fake_node) == -signal.SIGINT
    assert [job.state for job in fake_node.jobs.values()] == [JobState.PENDING]


def test_ctrl_c_stops_a_map(fake_node: FakeNode):
    script = f"""
from bacalhau_p2p import SyncClient
with SyncClient({fake_node.url!r}) as client:
    list(client.map(lambda n: {NOOP!r}, [1]))
"""
    assert interrupted(script, fake_node) == -signal.SIGINT
    assert [job.state for job in fake_node.jobs.values()] == [JobState.STOPPED]


def interrupted(script: str, node: FakeNode) -> int:
    """The status of a script that gets Ctrl-C once it waits for a job."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(
        [sys.executable, "-c", script], stderr=subprocess.PIPE, text=True, env=environment
    )
    node.wait_until(lambda: node.waiting == 1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert stderr.rstrip().endswith("KeyboardInterrupt")
    return process.returncode
