"""Blocking handles on jobs and results, for scripts. Each describes itself by its async twin."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from bacalhau_p2p.client.functions import FunctionJob
from bacalhau_p2p.client.jobs import JobHandle
from bacalhau_p2p.client.outcomes import Outcome
from bacalhau_p2p.client.portal import Portal
from bacalhau_p2p.client.results import READ_LIMIT, Result, ResultFile
from bacalhau_p2p.client.twin_docs import described_by
from bacalhau_p2p.errors import BacalhauError
from bacalhau_p2p.model.base import JobID, PeerID
from bacalhau_p2p.model.execution import Execution, Job, PublishedResult, RunOutput
from bacalhau_p2p.model.history import HistoryEvent
from bacalhau_p2p.model.logs import LogPiece
from bacalhau_p2p.model.usage import Usage

T = TypeVar("T")
V = TypeVar("V")


@described_by(JobHandle)
class SyncJobHandle:
    """A submitted job: `JobHandle` without `await`."""

    def __init__(self, portal: Portal, job: JobHandle) -> None:
        self._portal = portal
        self._job = job

    def __repr__(self) -> str:
        return repr(self._job).replace("JobHandle", "SyncJobHandle", 1)

    def _repr_html_(self) -> str:
        return self._job._repr_html_()

    @property
    def id(self) -> JobID:
        return self._job.id

    def status(self) -> Job:
        return self._portal.call(self._job.status)

    def executions(self) -> Sequence[Execution]:
        return self._portal.call(self._job.executions)

    def events(self, *, after: int = 0) -> Iterator[HistoryEvent]:
        return self._portal.iterate(self._job.events(after=after))

    def logs(
        self, *, follow: bool = False, tail: int | None = None, execution: str = ""
    ) -> Iterator[LogPiece]:
        return self._portal.iterate(self._job.logs(follow=follow, tail=tail, execution=execution))

    def wait(self, timeout: float | None = None) -> Job:
        return self._portal.call(self._job.wait, timeout)

    def wait_result(self, timeout: float | None = None, *, check: bool = False) -> SyncResult:
        async def wait() -> Result:
            return await self._job.wait_result(timeout, check=check)

        return SyncResult(self._portal, self._portal.call(wait))

    def results(
        self, timeout: float | None = None, *, check: bool = False, partial: bool = False
    ) -> Sequence[SyncResult]:
        async def wait() -> Sequence[Result]:
            return await self._job.results(timeout, check=check, partial=partial)

        return [SyncResult(self._portal, result) for result in self._portal.call(wait)]

    def cancel(self, reason: str = "cancelled by the user") -> None:
        self._portal.call(self._job.cancel, reason)


@described_by(FunctionJob)
class SyncFunctionJob(SyncJobHandle, Generic[V]):
    """A call of a function that runs as a job: `FunctionJob` without `await`."""

    def __init__(self, portal: Portal, job: FunctionJob[V]) -> None:
        super().__init__(portal, job)
        self._function_job = job

    def value(self, timeout: float | None = None) -> V:
        return self._portal.call(self._function_job.value, timeout)


@described_by(Result)
class SyncResult:
    """The result of a completed job: `Result` without `await`."""

    def __init__(self, portal: Portal, result: Result) -> None:
        self._portal = portal
        self._result = result

    def __repr__(self) -> str:
        return repr(self._result).replace("Result", "SyncResult", 1)

    def _repr_html_(self) -> str:
        return self._result._repr_html_()

    @property
    def job(self) -> Job:
        return self._result.job

    @property
    def executions(self) -> tuple[Execution, ...]:
        return self._result.executions

    @property
    def partition(self) -> int:
        return self._result.partition

    @property
    def node(self) -> PeerID:
        return self._result.node

    @property
    def published(self) -> PublishedResult | None:
        return self._result.published

    @property
    def cid(self) -> str:
        return self._result.cid

    @property
    def output(self) -> RunOutput:
        return self._result.output

    @property
    def usage(self) -> Usage:
        return self._result.usage

    @property
    def exit_code(self) -> int:
        return self._result.exit_code

    @property
    def stdout(self) -> bytes:
        return self._result.stdout

    @property
    def stderr(self) -> bytes:
        return self._result.stderr

    def check(self) -> None:
        self._result.check()

    def read(self, path: str, *, limit: int = READ_LIMIT) -> bytes:
        async def read() -> bytes:
            return await self._result.read(path, limit=limit)

        return self._portal.call(read)

    @contextmanager
    def open(self, path: str) -> Iterator[io.BufferedReader]:
        """A file of the results folder for the length of the block, read while it arrives: a binary file as
        `open(path, "rb")` gives it, but without `seek`. Raises PathNotFound, ContentError."""
        with (
            self._portal.enter(lambda: self._result.open(path)) as file,
            io.BufferedReader(cast("Any", _RawFile(self._portal, file))) as reader,
        ):
            yield reader

    def fetch(self, folder: Path | str) -> Path:
        return self._portal.call(self._result.fetch, folder)


@dataclass(frozen=True, slots=True)
class SyncOutcome(Generic[T, V]):
    """`Outcome` with blocking handles."""

    input: T
    index: int
    job: SyncJobHandle | None
    error: BacalhauError | None
    _outcome: Outcome[T, V]

    @property
    def ok(self) -> bool:
        return self.error is None

    @property
    def result(self) -> V:
        return self._outcome.result


class _RawFile(io.RawIOBase):
    def __init__(self, portal: Portal, file: ResultFile) -> None:
        self._portal = portal
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._portal.call(self._file.read, len(buffer))
        buffer[: len(data)] = data
        return len(data)
