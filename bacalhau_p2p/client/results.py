"""Handles on the results of completed jobs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from bacalhau_p2p.client import views
from bacalhau_p2p.client.backend import Backend
from bacalhau_p2p.errors import ContentTooLarge, JobFailed, JobNotFinished
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.execution import Execution, Job, PublishedResult, RunOutput
from bacalhau_p2p.model.quantities import size_text
from bacalhau_p2p.model.state import ExecutionState
from bacalhau_p2p.model.usage import Usage

READ_LIMIT = 64 * 1024 * 1024
"""Bytes that `Result.read` takes into memory unless it is told another limit."""


class Result:
    """The result of a completed job: a folder with `stdout`, `stderr`, `exitCode` and its outputs.

    If several executions were accepted, this is the result of the first. A verifier that compares
    results has found them equal. `executions` has all of them. `job.results()` has one for each partition,
    or each node of an ops job.
    """

    def __init__(self, backend: Backend, job: Job, executions: Sequence[Execution]) -> None:
        self._backend = backend
        self.job = job
        self.executions = tuple(e for e in executions if e.state is ExecutionState.COMPLETED)
        if not self.executions:
            raise JobNotFinished(f"job {job.id} has completed, but has no published result")

    def __repr__(self) -> str:
        return f"<Result of job {self.job.id}: exit code {self.exit_code}, {self.cid or 'not published'}>"

    def _repr_html_(self) -> str:
        return views.result(self.job.id, self.exit_code, self.cid, self.stdout, self.stderr)

    @property
    def partition(self) -> int:
        """Which partition of the job this is the result of, counted from 0; 0 if it has only one."""
        slot = self.executions[0].slot
        return 0 if slot is None else self.job.spec.partition_of(slot).index

    @property
    def node(self) -> PeerID:
        """The node that ran it."""
        return self.executions[0].node_id

    @property
    def published(self) -> PublishedResult | None:
        """Where the result is published; None if the publisher publishes nothing."""
        return self.executions[0].published

    @property
    def cid(self) -> str:
        """The CID of the results folder."""
        if self.published is not None:
            return self.published.cid
        proposal = self.executions[0].proposal
        return proposal.result_cid if proposal else ""

    @property
    def output(self) -> RunOutput:
        """The exit code and the first 2 KiB of stdout and stderr as they are, and whether they are cut."""
        proposal = self.executions[0].proposal
        return proposal.output if proposal else RunOutput()

    @property
    def usage(self) -> Usage:
        """What its run used, as its node measured it; nothing if the node did not."""
        return self.executions[0].usage or Usage()

    @property
    def exit_code(self) -> int:
        """That of its program. 0 is success."""
        return self.output.exit_code

    @property
    def stdout(self) -> bytes:
        """All of stdout if it has at most 2 KiB; else its first 2 KiB, and a last line that says so.

        `read("stdout")` has all of it."""
        output = self.output
        return _cut_visibly(output.stdout, "stdout") if output.stdout_truncated else output.stdout

    @property
    def stderr(self) -> bytes:
        """Like `stdout`."""
        output = self.output
        return _cut_visibly(output.stderr, "stderr") if output.stderr_truncated else output.stderr

    def check(self) -> None:
        """Raises JobFailed if an exit code is not 0, that of any of `executions`."""
        for execution in self.executions:
            output = execution.proposal.output if execution.proposal else RunOutput()
            if output.exit_code:
                alone = Result(self._backend, self.job, [execution])
                which = f" of partition {alone.partition}" if self.job.spec.partitions > 1 else ""
                raise JobFailed(
                    f"exit code {output.exit_code}{which} (job {self.job.id})",
                    last_lines=output.stderr.decode(errors="replace"),
                )

    async def read(self, path: str, *, limit: int = READ_LIMIT) -> bytes:
        """All bytes of a file of the results folder, such as `stdout` or `outputs/table.csv`.

        Raises ContentTooLarge for more than `limit` bytes, PathNotFound, ContentError.
        """
        whole = bytearray()
        async with self.open(path) as pieces:
            async for piece in pieces:
                whole += piece
                if len(whole) > limit:
                    most = size_text(limit)
                    raise ContentTooLarge(f"{path} has more than {most}; use open, or a larger limit")
        return bytes(whole)

    @asynccontextmanager
    async def open(self, path: str) -> AsyncIterator[ResultFile]:
        """A file of the results folder for the length of the block, read while it arrives.

        async with result.open("outputs/table.csv") as file:
            async for piece in file:
                ...

        The whole file is never in memory. Raises PathNotFound, ContentError.
        """
        async with aclosing(self._backend.read(f"{self.cid}/{path}", hints=self._providers())) as pieces:
            yield ResultFile(path, pieces)

    async def fetch(self, folder: Path | str) -> Path:
        """Write the results folder to `folder`, which must not exist, and return its path.

        Every block is verified against its CID. Raises ContentError; then nothing is left there.
        """
        target = Path(folder)
        await self._backend.export(self.cid, target, hints=self._providers())
        return target

    def _providers(self) -> Sequence[str]:
        providers = self.published.location.params.get("Providers") if self.published else None
        if not isinstance(providers, list | tuple):
            return ()
        return [address for address in providers if isinstance(address, str)]


def alike(job: Job, executions: Sequence[Execution]) -> list[list[Execution]]:
    """The completed executions of a job, grouped by what they did: by partition, in order, or by node for an
    ops job."""
    groups: dict[tuple[int, str], list[Execution]] = {}
    for each in executions:
        if each.state is ExecutionState.COMPLETED:
            partition = 0 if each.slot is None else job.spec.partition_of(each.slot).index
            key = (0, str(each.node_id)) if job.spec.is_ops else (partition, "")
            groups.setdefault(key, []).append(each)
    return [groups[key] for key in sorted(groups)]


class ResultFile:
    """A file that is read while it arrives. Iterate over its pieces, or `read` so many bytes at a time."""

    def __init__(self, path: str, pieces: AsyncGenerator[bytes, None]) -> None:
        self.path = path
        self._pieces = pieces
        self._rest = b""

    def __repr__(self) -> str:
        return f"<ResultFile {self.path}>"

    def __aiter__(self) -> ResultFile:
        return self

    async def __anext__(self) -> bytes:
        """The next piece: some bytes, never none."""
        if piece := self._rest:
            self._rest = b""
            return piece
        return await anext(self._pieces)

    async def read(self, size: int) -> bytes:
        """The next `size` bytes; fewer at the end of the file only, and none beyond it."""
        taken = bytearray()
        while len(taken) < size:
            piece = await anext(self, b"")
            if not piece:
                break
            wanted = size - len(taken)
            taken += piece[:wanted]
            self._rest = piece[wanted:]
        return bytes(taken)


def _cut_visibly(text: bytes, name: str) -> bytes:
    shown = f'[cut after {len(text):,} bytes: result.read("{name}") has all of it]\n'
    return text + (b"" if text.endswith(b"\n") else b"\n") + shown.encode()
