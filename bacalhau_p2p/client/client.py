"""A node's HTTP API for programs on trio: what `open_node` offers in this process, from elsewhere.

async with Client("http://127.0.0.1:1234") as client:
    job = await client.submit({"Tasks": [{"Engine": {"Type": "noop"}}]})
    result = await job.wait_result()
    await result.fetch("results")
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import trio

from bacalhau_p2p.client import calls
from bacalhau_p2p.client.async_connection import AsyncConnection
from bacalhau_p2p.client.download import Download
from bacalhau_p2p.client.jobs import JobHandle, JobLike, spec_of
from bacalhau_p2p.client.upload import upload
from bacalhau_p2p.errors import JobEnded
from bacalhau_p2p.ipfs.files.reader import split_path
from bacalhau_p2p.model.api_json import event_from_json, execution_from_json, job_from_json
from bacalhau_p2p.model.api_nodes import node_from_json
from bacalhau_p2p.model.base import JobID
from bacalhau_p2p.model.execution import Execution, Job
from bacalhau_p2p.model.history import HistoryEvent, HistoryPage
from bacalhau_p2p.model.logs import LogPiece, LogQuery
from bacalhau_p2p.model.node import NodeInfo

_T = TypeVar("_T")


class Client:
    """A node's HTTP API, for an `async with` block. Cancelling any method is safe.

    `token` is sent with every request, for nodes that require one. Every method raises NodeUnavailable,
    and ApiError for a response that makes no sense.
    """

    def __init__(self, url: str = "http://127.0.0.1:1234", *, token: str = "") -> None:
        self.url = url.rstrip("/")
        self._connection = AsyncConnection(self.url, token=token)
        self._backend = HttpBackend(self._connection)

    async def __aenter__(self) -> Self:
        await self._connection.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.__aexit__(kind, error, trace)

    async def submit(self, job: JobLike, *, idempotency_token: str | None = None) -> JobHandle:
        """Submit a job: a `JobSpec`, a mapping, or JSON or YAML text. It is durable when this returns.

        The same token returns the same job. Raises InvalidJob with the path of every fault.
        """
        body = spec_of(job).model_dump(mode="json", by_alias=True)
        call = calls.submit_job(body, idempotency_token=idempotency_token or "")
        return JobHandle(self._backend, JobID(await self._connection.call(call)))

    async def job(self, job_id: str) -> JobHandle:
        """The job with this id or prefix of an id. Raises UnknownJob, AmbiguousID."""
        return JobHandle(self._backend, (await self._backend.job(JobID(job_id))).id)

    async def jobs(self, *, limit: int = 10, id_prefix: str = "") -> Sequence[Job]:
        """The latest jobs whose id has this prefix, newest first."""
        call = calls.list_jobs(limit=limit, id_prefix=id_prefix)
        return await self._connection.call(call.then(_each(job_from_json)))

    async def events(
        self,
        *,
        jobs: Sequence[str] = (),
        labels: Sequence[str] = (),
        kinds: Sequence[str] = (),
        after: int | None = None,
    ) -> AsyncIterator[HistoryEvent]:
        """What happens to all jobs of this node from now on, or behind the `place` of an event; endless.

        `jobs` (ids or names), `labels` (selectors such as `team=a,!slow`) and `kinds` leave out others. An
        event of the kind `Omitted` without a job says that others were deleted with their jobs before they
        were read. Goes on after a connection has broken. Raises UnknownJob, ApiError.
        """
        wanted = calls.EventFilter(jobs=jobs, labels=labels, kinds=kinds)
        begin = calls.list_all_events(wanted)
        place = (await self._connection.call(begin))[1] if after is None else after
        while True:
            asked_at = trio.current_time()
            call = calls.list_all_events(wanted, after=place, wait=calls.LONG_POLL)
            items, place = await self._connection.call(call)
            for item in items:
                yield event_from_json(item)
            if not items:
                took = trio.current_time() - asked_at
                await trio.sleep(calls.pause_between_polls(calls.LONG_POLL, took))

    async def nodes(self) -> Sequence[NodeInfo]:
        """The nodes that this one knows, itself included."""
        return await self._connection.call(calls.list_nodes().then(_each(_info)))

    async def add(self, path: Path | str) -> str:
        """Add a file or folder to the node, which pins it, and return its CID. Raises ContentError."""
        return await self._connection.call(upload(Path(path)))

    async def fetch(self, cid: str, target: Path | str) -> Path:
        """Write the content of `cid` to `target`, which must not exist. Raises ContentError."""
        await self._backend.export(cid, Path(target))
        return Path(target)


class HttpBackend:
    """The `Backend` of job handles behind a node's HTTP API."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def job(self, job_id: JobID) -> Job:
        return await self._connection.call(calls.get_job(job_id).then(job_from_json))

    async def wait(self, job_id: JobID, timeout: float | None) -> Job:
        deadline = math.inf if timeout is None else trio.current_time() + timeout
        while True:
            asked_at = trio.current_time()
            patience = max(0.0, min(calls.LONG_POLL, deadline - asked_at))
            job = await self._connection.call(calls.get_job(job_id, wait=patience).then(job_from_json))
            now = trio.current_time()
            if job.state.terminal or now >= deadline:
                return job
            await trio.sleep(min(calls.pause_between_polls(patience, now - asked_at), deadline - now))

    async def executions(self, job_id: JobID) -> Sequence[Execution]:
        return await self._connection.call(calls.list_executions(job_id).then(_each(execution_from_json)))

    async def history(self, job_id: JobID, after: int, timeout: float) -> HistoryPage:
        asked_at = trio.current_time()
        call = calls.list_events(job_id, after=after, wait=timeout)
        page = await self._connection.call(call.then(_history_page))
        if not page.events and not page.ended:
            await trio.sleep(calls.pause_between_polls(timeout, trio.current_time() - asked_at))
        return page

    def logs(self, job_id: JobID, query: LogQuery) -> AsyncGenerator[LogPiece | None, None]:
        return self._connection.lines(
            calls.read_logs(job_id, follow=query.follow, tail=query.tail, execution=query.execution)
        )

    async def cancel(self, job_id: JobID, reason: str) -> None:
        with suppress(JobEnded):
            await self._connection.call(calls.cancel_job(job_id, reason=reason))

    async def export(self, cid: str, target: Path, *, hints: Sequence[str] = ()) -> None:
        root, path = split_path(cid)
        download = await trio.to_thread.run_sync(
            partial(Download, root, target, path=path, providers=hints, symlinks="keep")
        )
        try:
            await self._connection.download(download)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(download.close)


def _info(state: Mapping[str, Any]) -> NodeInfo:
    return node_from_json(state.get("Info"))


def _history_page(items_and_ended: tuple[list[dict[str, Any]], bool]) -> HistoryPage:
    items, ended = items_and_ended
    return HistoryPage([event_from_json(item) for item in items], ended)


def _each(convert: Callable[[Mapping[str, Any]], _T]) -> Callable[[list[dict[str, Any]]], list[_T]]:
    return lambda items: [convert(item) for item in items]
