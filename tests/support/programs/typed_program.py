"""What users write, with all of the public API: checked by mypy --strict, never run."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import assert_type

from bacalhau_p2p import (
    AmbiguousID,
    AnyNode,
    ApiError,
    AsCompleted,
    BacalhauError,
    Client,
    ContentError,
    ContentInUse,
    ContentNotFound,
    ContentTooLarge,
    DiskFull,
    EventDropped,
    EventKind,
    Execution,
    ExecutionError,
    ExecutionState,
    ExecutorError,
    Fault,
    FunctionJob,
    HistoryEvent,
    Input,
    InputLike,
    InvalidCID,
    InvalidContent,
    InvalidFunction,
    InvalidJob,
    InvalidValue,
    Job,
    JobEnded,
    JobFailed,
    JobHandle,
    JobLike,
    JobMap,
    JobNotFinished,
    JobOptions,
    JobSpec,
    JobState,
    LogPiece,
    LogStream,
    LogsUnavailable,
    MessageTooLarge,
    Node,
    NodeInfo,
    NodeUnavailable,
    NoRoom,
    Outcome,
    PathNotFound,
    PeerUnreachable,
    ProtocolError,
    PublishedResult,
    PublisherError,
    RemoteError,
    RemoteFunction,
    RemoteProtocolError,
    Result,
    ResultFile,
    RunOutput,
    RunTimedOut,
    Settings,
    SettingsError,
    StorageError,
    StoreFailed,
    SyncClient,
    SyncFunctionJob,
    SyncJobHandle,
    SyncOutcome,
    SyncResult,
    TransportError,
    UnknownJob,
    UnknownNode,
    Usage,
    VerifierError,
    __version__,
    divided,
    docker,
    load_settings,
    open_node,
    remote,
    wasm,
)

MISTAKES: Sequence[type[BacalhauError]] = (
    AmbiguousID,
    ApiError,
    ContentError,
    ContentInUse,
    ContentNotFound,
    ContentTooLarge,
    DiskFull,
    EventDropped,
    ExecutionError,
    ExecutorError,
    InvalidCID,
    InvalidContent,
    InvalidFunction,
    InvalidJob,
    InvalidValue,
    JobEnded,
    JobFailed,
    JobNotFinished,
    LogsUnavailable,
    MessageTooLarge,
    NoRoom,
    NodeUnavailable,
    PathNotFound,
    PeerUnreachable,
    ProtocolError,
    PublisherError,
    RemoteError,
    RemoteProtocolError,
    RunTimedOut,
    SettingsError,
    StorageError,
    StoreFailed,
    TransportError,
    UnknownJob,
    UnknownNode,
    VerifierError,
)


def specs(cid: str) -> list[JobSpec]:
    everything: JobOptions = {
        "name": "all of it",
        "labels": {"team": "a"},
        "count": 3,
        "inputs": {"/inputs": cid},
        "memory": "256mb",
        "network": "none",
    }
    module: InputLike = f"ipfs://{cid}/main.wasm"
    try:
        return [
            docker("busybox", "wc", "/inputs", entrypoint=["/bin/sh"], workdir="/work", **everything),
            wasm(module, "-n", "3", entrypoint="main", imports=[cid], confidence=2),
            wasm(module, inputs={"/inputs": divided(cid, "regex", pattern="[0-9]{4}")}, count=8),
        ]
    except InvalidJob as error:
        fault: Fault = error.faults[0]
        print(fault.path, fault.problem)
        return []


@remote
def double(number: int) -> int:
    return 2 * number


@remote(count=3, memory="512mb")
def length(text: Input) -> int:
    return len(str(text))


async def use(node: AnyNode, job_like: JobLike, cids: list[str]) -> bytes:
    """With a node here or elsewhere."""
    job: JobHandle = await node.submit(job_like, idempotency_token="once")
    async for event in job.events(after=3):
        tell(event)
    async with aclosing(job.logs(follow=True, tail=10, execution="e-1")) as pieces:
        async for piece in pieces:
            write(piece)
    state: JobState = (await job.status()).state
    executions: Sequence[Execution] = await job.executions()
    failed = [each for each in executions if each.state is ExecutionState.FAILED]
    try:
        result: Result = await job.wait_result(60, check=True)
    except JobFailed as error:
        print(error.last_lines, state, len(failed))
        await job.cancel("it is enough")
        raise
    ended: Job = await job.wait(timeout=5)
    print(
        ended.id, result.cid, result.exit_code, result.stdout, result.stderr, result.job.id, result.executions
    )
    published: PublishedResult | None = result.published
    results: Sequence[Result] = await job.results(60, partial=True)
    output: RunOutput = result.output
    usage: Usage = result.usage
    print(usage.cpu_seconds, usage.peak_memory, usage.bytes_in, usage.bytes_out)
    print(published, output.stdout_truncated, [(part.partition, part.node) for part in results])
    result.check()
    async with result.open("outputs/table.csv") as file:
        await copy(file)
    folder: Path = await result.fetch("results")
    await node.fetch(await node.add(folder), folder / "again")
    nodes: Sequence[NodeInfo] = await node.nodes()
    jobs: Sequence[Job] = await node.jobs(limit=3, id_prefix="a")
    again: JobHandle = await node.job(jobs[0].id)
    print(nodes[0].id, again.id)
    async for event in node.events(jobs=["mine"], labels=["team=a"], kinds=["Ended"], after=0):
        if event.kind is EventKind.ENDED:
            break
    await map_over(node, cids)
    return await result.read("stdout", limit=1024)


async def map_over(node: AnyNode, cids: list[str]) -> None:
    results: JobMap[Result] = node.map(docker("busybox", "wc", "/inputs"), cids, limit=4)
    async for result in results:
        print(result.stdout)
    await results.aclose()
    sizes: list[bytes] = await node.map(lambda n: docker("busybox", str(n)), range(9), read=whole, check=True)
    completed: AsCompleted[str, Result] = node.as_completed(
        {"Tasks": []}, inputs(cids), timeout=9, stop=False
    )
    async for outcome in completed:
        done: Outcome[str, Result] = outcome
        print(done.input, done.index, done.job, done.result.cid if done.ok else done.error)
    call: FunctionJob[int] = await node.submit_function(double, 21)
    numbers: list[int] = await node.map(double, range(10))
    function: RemoteFunction[[int], int] = double
    print(sizes, await call.value(), numbers, function(3), length)


@remote
def size_of(book: Path, scale: int = 1) -> int:
    return scale * book.stat().st_size


async def map_with_a_client(client: Client, cids: list[str]) -> None:
    """The same types as with `AnyNode`; an `Input` stands for a `Path`."""
    assert_type(await client.map(size_of, [Input(cid) for cid in cids]), list[int])
    assert_type(await client.map(docker("busybox"), cids, read=whole), list[bytes])
    assert_type(await client.map(docker("busybox"), cids), list[Result])
    async for number in client.map(double, range(3)):
        assert_type(number, int)
    async for outcome in client.as_completed(double, range(3)):
        assert_type(outcome.result, int)


def map_without_await(client: SyncClient, cids: list[str]) -> None:
    assert_type(list(client.map(size_of, [Input(cid) for cid in cids])), list[int])
    assert_type(list(client.map(docker("busybox"), cids, read=lambda done: done.cid)), list[str])


async def whole(result: Result) -> bytes:
    return await result.read("outputs/all")


async def inputs(cids: list[str]) -> AsyncIterator[str]:
    for cid in cids:
        yield cid


async def copy(file: ResultFile) -> None:
    head: bytes = await file.read(10)
    async for piece in file:
        head += piece


def tell(event: HistoryEvent) -> None:
    print(event.number, event.kind, event.message)


def write(piece: LogPiece) -> None:
    if piece.stream is LogStream.STDOUT:
        print(piece.data.decode(), end="")


async def main() -> None:
    async with Client("http://127.0.0.1:1234", token="secret", reconnect=5) as client:
        await use(client, specs("bafy")[0], ["bafy"])
    settings: Settings = load_settings()
    async with open_node(settings) as node:
        opened: Node = node
        await use(opened, "tasks: [engine: {type: noop}]", [])
    other = Client()
    await other.aclose()


def script() -> None:
    print(__version__)
    with SyncClient() as client:
        job: SyncJobHandle = client.submit(specs("bafy")[0])
        result: SyncResult = job.wait_result(timeout=60, check=True)
        results: Sequence[SyncResult] = job.results(timeout=60)
        print([(part.partition, part.node) for part in results])
        with result.open("outputs/table.csv") as file:
            for row in csv.reader(io.TextIOWrapper(file)):
                print(row)
        for event in job.events():
            tell(event)
        for piece in job.logs(follow=True):
            write(piece)
        whole: bytes = result.read("stdout")
        names: list[str] = list(client.map(specs("bafy")[1], ["bafy"], read=lambda done: done.cid))
        for outcome in client.as_completed(lambda n: docker("busybox", str(n)), range(3)):
            done: SyncOutcome[int, SyncResult] = outcome
            print(done.result.stdout if done.ok else done.error)
        call: SyncFunctionJob[int] = client.submit_function(double, 2)
        print(
            client.url,
            whole,
            names,
            call.value(),
            client.job(job.id).wait().state,
            client.nodes(),
            client.jobs(),
        )
        for event in client.events(kinds=["Failed"]):
            tell(event)
        client.close()
