"""The backend of handles and clients behind a node's HTTP API."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from bacalhau_p2p.client import calls
from bacalhau_p2p.client.async_connection import MAX_CONNECTIONS, AsyncConnection
from bacalhau_p2p.client.calls import Call, EventFilter
from bacalhau_p2p.client.download import Download
from bacalhau_p2p.client.file_stream import FileStream
from bacalhau_p2p.client.retry import RECONNECT, Patience
from bacalhau_p2p.client.upload import upload
from bacalhau_p2p.errors import JobEnded, NodeUnavailable
from bacalhau_p2p.ipfs.files.reader import split_path
from bacalhau_p2p.model.api_json import event_from_json, execution_from_json, job_from_json
from bacalhau_p2p.model.api_nodes import node_from_json
from bacalhau_p2p.model.base import JobID
from bacalhau_p2p.model.execution import Execution, Job
from bacalhau_p2p.model.history import EventKind, HistoryEvent
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.logs import KnownOutput, LogPiece, LogQuery
from bacalhau_p2p.model.node import NodeInfo

MAX_LONG_POLLS = MAX_CONNECTIONS - 8
"""Waits that may each keep a connection to themselves. The rest is for other requests."""
SHORT_POLL = 1.0
"""Seconds of a poll when there are more waits than that: they take turns."""

_T = TypeVar("_T")


class HttpBackend:
    """`Backend` by HTTP.

    Waits survive a restart of the node: while it cannot be reached they try again for `reconnect` seconds.
    """

    def __init__(self, connection: AsyncConnection, *, reconnect: float = RECONNECT) -> None:
        self._connection = connection
        self._reconnect = reconnect
        self._waiting = 0

    async def submit(self, spec: JobSpec, token: str | None) -> JobID:
        body = spec.model_dump(mode="json", by_alias=True)
        call = calls.submit_job(body, idempotency_token=token or "")
        return JobID(await self._connection.call(call))

    async def job(self, job_id: str) -> Job:
        return await self._connection.call(calls.get_job(job_id).then(job_from_json))

    async def jobs(self, limit: int, id_prefix: str) -> Sequence[Job]:
        call = calls.list_jobs(limit=limit, id_prefix=id_prefix)
        return await self._connection.call(call.then(_each(job_from_json)))

    async def wait(self, job_id: JobID, timeout: float | None) -> Job:
        def ask(poll: float) -> Call[Job]:
            return calls.get_job(job_id, wait=poll).then(job_from_json)

        return await self._wait(ask, lambda job: job, timeout)

    async def wait_with_executions(
        self, job_id: JobID, timeout: float | None
    ) -> tuple[Job, Sequence[Execution]]:
        def ask(poll: float) -> Call[tuple[Job, Sequence[Execution]]]:
            return calls.get_job_with_executions(job_id, wait=poll).then(_job_and_executions)

        return await self._wait(ask, lambda found: found[0], timeout)

    async def _wait(
        self, ask: Callable[[float], Call[_T]], job_of: Callable[[_T], Job], timeout: float | None
    ) -> _T:
        """The answer once its job is in a terminal state, or after `timeout` seconds."""
        deadline = inf if timeout is None else anyio.current_time() + timeout
        patience = Patience(self._reconnect)
        self._waiting += 1
        try:
            while True:
                asked_at = anyio.current_time()
                longest = calls.LONG_POLL if self._waiting <= MAX_LONG_POLLS else SHORT_POLL
                poll = max(0.0, min(longest, deadline - asked_at))
                try:
                    found = await self._connection.call(ask(poll))
                except NodeUnavailable as error:
                    await self._pause(patience, error, deadline)
                    continue
                patience.succeeded()
                now = anyio.current_time()
                if job_of(found).state.terminal or now >= deadline:
                    return found
                await anyio.sleep(min(calls.pause_between_polls(poll, now - asked_at), deadline - now))
        finally:
            self._waiting -= 1

    async def executions(self, job_id: JobID) -> Sequence[Execution]:
        call = calls.list_executions(job_id).then(_each(execution_from_json))
        patience = Patience(self._reconnect)
        while True:
            try:
                return await self._connection.call(call)
            except NodeUnavailable as error:
                await self._pause(patience, error)

    async def events(self, job_id: JobID, after: int) -> AsyncGenerator[HistoryEvent, None]:
        patience = Patience(self._reconnect)
        while True:
            call = calls.follow_events(job_id, after=after).then(event_from_json)
            latest: HistoryEvent | None = None
            try:
                stream = self._connection.events(call)
                async with aclosing(stream) as events:
                    async for event in events:
                        if event is None:
                            return
                        patience.succeeded()
                        if event.number > after:
                            yield event
                            after, latest = event.number, event
            except NodeUnavailable as error:
                await self._pause(patience, error)
            else:
                if latest is not None and latest.kind is EventKind.ENDED:
                    return
                if latest is None:
                    await anyio.sleep(calls.EARLY_RESPONSE_PAUSE)

    async def feed(self, wanted: EventFilter, after: int | None) -> AsyncGenerator[HistoryEvent, None]:
        patience = Patience(self._reconnect)
        place = await self._feed_end(wanted) if after is None else after
        while True:
            asked_at = anyio.current_time()
            call = calls.list_all_events(wanted, after=place, wait=calls.LONG_POLL)
            try:
                items, place = await self._connection.call(call)
            except NodeUnavailable as error:
                await self._pause(patience, error)
                continue
            patience.succeeded()
            for item in items:
                yield event_from_json(item)
            if not items:
                took = anyio.current_time() - asked_at
                await anyio.sleep(calls.pause_between_polls(calls.LONG_POLL, took))

    async def logs(self, job_id: JobID, query: LogQuery) -> AsyncGenerator[LogPiece | None, None]:
        known = KnownOutput()
        patience = Patience(self._reconnect)
        while True:
            call = calls.read_logs(job_id, follow=query.follow, tail=query.tail, execution=query.execution)
            try:
                lines = self._connection.lines(call)
                async with aclosing(lines) as pieces:
                    async for piece in pieces:
                        patience.succeeded()
                        if piece is None:
                            yield None
                        elif fresh := known.fresh(piece):
                            yield fresh
                return
            except NodeUnavailable as error:
                await self._pause(patience, error)
                query = replace(query, tail=None if known else query.tail)

    async def cancel(self, job_id: JobID, reason: str) -> None:
        with suppress(JobEnded):
            await self._connection.call(calls.cancel_job(job_id, reason=reason))

    async def nodes(self) -> Sequence[NodeInfo]:
        return await self._connection.call(calls.list_nodes().then(_each(_info)))

    async def add(self, path: Path) -> str:
        return await self._connection.call(upload(path))

    async def export(self, cid: str, target: Path, *, hints: Sequence[str] = ()) -> None:
        root, path = split_path(cid)
        download = await anyio.to_thread.run_sync(
            partial(Download, root, target, path=path, providers=hints, symlinks="keep")
        )
        try:
            await self._connection.download(download)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(download.close)

    async def read(self, cid: str, *, hints: Sequence[str] = ()) -> AsyncGenerator[bytes, None]:
        root, path = split_path(cid)
        patience, position = Patience(self._reconnect), 0
        while True:
            at = 0
            try:
                with FileStream(root, path=path, providers=hints) as stream:
                    async with aclosing(self._connection.read(stream)) as pieces:
                        async for piece in pieces:
                            patience.succeeded()
                            fresh = piece[max(position - at, 0) :]
                            at += len(piece)
                            if fresh:
                                position = at
                                yield fresh
                return
            except NodeUnavailable as error:
                await self._pause(patience, error)

    async def _feed_end(self, wanted: EventFilter) -> int:
        _, place = await self._connection.call(calls.list_all_events(wanted))
        return place

    async def _pause(self, patience: Patience, error: NodeUnavailable, deadline: float = inf) -> None:
        """Before the next attempt to reach the node. Raises the error when there is no time for one."""
        now = anyio.current_time()
        pause = patience.pause(error, now=now)
        if now + pause > deadline:
            raise error
        await anyio.sleep(pause)


def _job_and_executions(
    found: tuple[Mapping[str, Any], list[dict[str, Any]]],
) -> tuple[Job, Sequence[Execution]]:
    return job_from_json(found[0]), [execution_from_json(item) for item in found[1]]


def _info(state: Mapping[str, Any]) -> NodeInfo:
    return node_from_json(state.get("Info"))


def _each(convert: Callable[[Mapping[str, Any]], _T]) -> Callable[[list[dict[str, Any]]], list[_T]]:
    return lambda items: [convert(item) for item in items]
