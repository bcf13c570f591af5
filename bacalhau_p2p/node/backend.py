"""The node in this process, as handles on jobs and results use it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from math import inf
from pathlib import Path
from typing import Protocol

from bacalhau_p2p.client.calls import EventFilter
from bacalhau_p2p.errors import InvalidContent
from bacalhau_p2p.ipfs.content.content import Content
from bacalhau_p2p.ipfs.files.reader import split_path
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.unixfs import File
from bacalhau_p2p.ipfs.store.pin_owners import USER
from bacalhau_p2p.model.base import JobID, PeerID
from bacalhau_p2p.model.execution import Execution, Job
from bacalhau_p2p.model.history import EventKind, HistoryEvent
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.label_filter import label_filter
from bacalhau_p2p.model.logs import LogPiece, LogQuery
from bacalhau_p2p.model.node import NodeInfo
from bacalhau_p2p.node.known_nodes import KnownNode
from bacalhau_p2p.requester.feed import FeedQuery
from bacalhau_p2p.requester.service import RequesterService
from bacalhau_p2p.requester.store import JobQuery
from bacalhau_p2p.settings import Settings

FEED_PAGE = 100
"""Events of all jobs that are read at once."""


class LocalNode(Protocol):
    """The node, as far as it is needed here."""

    settings: Settings
    content: Content

    @property
    def requester(self) -> RequesterService: ...

    def known_nodes(self) -> list[KnownNode]: ...

    def learn(self, addresses: Sequence[str]) -> list[PeerID]: ...

    def logs(self, job_id: JobID, query: LogQuery) -> AsyncGenerator[LogPiece | None, None]: ...


class LocalBackend:
    """`Backend` without HTTP in between."""

    def __init__(self, node: LocalNode) -> None:
        self._node = node

    async def submit(self, spec: JobSpec, token: str | None) -> JobID:
        return await self._node.requester.submit(spec, token=token)

    async def job(self, job_id: str) -> Job:
        requester = self._node.requester
        return requester.job(requester.resolve(job_id))

    async def jobs(self, limit: int, id_prefix: str) -> Sequence[Job]:
        query = JobQuery(prefix=id_prefix)
        return self._node.requester.jobs(query, limit=limit).jobs

    async def wait(self, job_id: JobID, timeout: float | None) -> Job:
        return await self._node.requester.wait(job_id, inf if timeout is None else timeout)

    async def wait_with_executions(
        self, job_id: JobID, timeout: float | None
    ) -> tuple[Job, Sequence[Execution]]:
        job = await self.wait(job_id, timeout)
        return job, await self.executions(job_id)

    async def executions(self, job_id: JobID) -> Sequence[Execution]:
        return await self._node.requester.executions(job_id)

    async def events(self, job_id: JobID, after: int) -> AsyncGenerator[HistoryEvent, None]:
        while True:
            page = await self._node.requester.history(job_id, after=after, timeout=inf)
            for event in page.events:
                yield event
                after = event.number
            if page.ended:
                return

    async def feed(self, wanted: EventFilter, after: int | None) -> AsyncGenerator[HistoryEvent, None]:
        requester = self._node.requester
        query = FeedQuery(
            jobs={requester.resolve(job) for job in wanted.jobs},
            kinds={EventKind(kind) for kind in wanted.kinds},
            labelled=label_filter(wanted.labels) if wanted.labels else None,
        )
        place = requester.feed_place(None) if after is None else after
        while True:
            page = await requester.feed(query, after=place, limit=FEED_PAGE, timeout=inf)
            for event in page.events:
                yield event
            place = page.last

    def logs(self, job_id: JobID, query: LogQuery) -> AsyncGenerator[LogPiece | None, None]:
        return self._node.logs(job_id, query)

    async def cancel(self, job_id: JobID, reason: str) -> None:
        await self._node.requester.cancel(job_id, reason)

    async def nodes(self) -> Sequence[NodeInfo]:
        return [known.info for known in self._node.known_nodes()]

    async def add(self, path: Path) -> str:
        added = await self._node.content.add(path, pin_owner=USER, hidden=False, programs=False)
        return str(added.cid)

    async def export(self, cid: str, target: Path, *, hints: Sequence[str] = ()) -> None:
        root, names = split_path(cid)
        content = self._node.content
        with content.holding(root):
            wanted = await self._fetched(root, names, hints)
            await content.export(wanted, target, symlinks="keep")

    async def read(self, cid: str, *, hints: Sequence[str] = ()) -> AsyncGenerator[bytes, None]:
        root, names = split_path(cid)
        content = self._node.content
        with content.holding(root):
            wanted = await self._fetched(root, names, hints)
            place = await content.reader.resolve(wanted)
            if not isinstance(place.node, File):
                raise InvalidContent(f"{cid} is not a file")
            async for piece in content.reader.file(wanted):
                yield piece

    async def _fetched(self, root: CID, names: Sequence[str], hints: Sequence[str]) -> CID:
        """What is at a path below `root`, once it is on this node."""
        content = self._node.content
        peers, timeout = self._node.learn(hints), self._node.settings.content_timeout
        wanted = await content.locate(root, names, hints=peers, timeout=timeout) if names else root
        await content.fetch(wanted, hints=peers, timeout=timeout)
        return wanted
