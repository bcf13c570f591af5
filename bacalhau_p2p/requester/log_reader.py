"""Reads what the executions of a job write: from the nodes that run them, or from published results."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

import trio
from trio.abc import HalfCloseableStream

from bacalhau_p2p.bprotocol.log_streams import (
    MAX_ANSWER,
    MAX_PIECE,
    PROTOCOL,
    FrameReader,
    LogEnd,
    LogRequest,
    decode_answer,
    encode_request,
)
from bacalhau_p2p.errors import ContentError, LogsUnavailable, PeerUnreachable, RemoteProtocolError
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import Execution, RunOutput
from bacalhau_p2p.model.history import HistoryPage
from bacalhau_p2p.model.logs import LogPiece, LogQuery, LogStream, after
from bacalhau_p2p.model.state import ExecutionState as S

OPEN_TIMEOUT = 15.0
"""Seconds to reach the node, and for its first answer."""
RETRY_PAUSE = 1.0
"""Seconds to the next question to a node that did not answer, while the execution goes on."""
KEEP_ALIVE = 10.0
"""Seconds without output after which whoever reads is told that nothing came."""

OpenStream = Callable[[PeerID, str], Awaitable[HalfCloseableStream]]
ReadFile = Callable[[str, Sequence[PeerID], int, int | None], AsyncGenerator[tuple[int, bytes], None]]
"""The content of a file by its CID, with peers that have it: from an offset, or its last lines."""

_UNREACHABLE = (PeerUnreachable, trio.BrokenResourceError, trio.ClosedResourceError, RemoteProtocolError)
_RUNS = (S.BID_ACCEPTED, S.RESULT_PROPOSED, S.RESULT_ACCEPTED)


class Jobs(Protocol):
    """The requester, as far as it is needed here."""

    async def executions(self, job_id: JobID) -> Sequence[Execution]: ...

    async def history(self, job_id: JobID, *, after: int = 0, timeout: float = 0.0) -> HistoryPage: ...


class LogReader:
    def __init__(self, jobs: Jobs, open_stream: OpenStream, read_file: ReadFile) -> None:
        self._jobs = jobs
        self._open_stream = open_stream
        self._read_file = read_file

    async def read(self, job_id: JobID, query: LogQuery) -> AsyncGenerator[LogPiece | None, None]:
        """The output of a job in pieces; None when nothing came for a while.

        Close the iterator when you stop early. Raises UnknownJob, LogsUnavailable.
        """
        done: set[ExecutionID] = set()
        seen = 0
        while True:
            page = await self._jobs.history(job_id, after=seen)
            seen = page.events[-1].number if page.events else seen
            execution = _chosen(await self._jobs.executions(job_id), query, done)
            if execution is not None:
                async with aclosing(self._of_execution(execution, query)) as pieces:
                    async for piece in pieces:
                        yield piece
                done.add(execution.id)
                query = replace(query, offsets=(0, 0), tail=None)
                if query.execution or not query.follow:
                    return
            elif page.ended or not query.follow:
                if not done:
                    raise LogsUnavailable(_nothing(job_id, query))
                return
            elif not (await self._jobs.history(job_id, after=seen, timeout=KEEP_ALIVE)).events:
                yield None

    async def _of_execution(
        self, execution: Execution, query: LogQuery
    ) -> AsyncGenerator[LogPiece | None, None]:
        offsets = query.offsets
        while True:
            request = LogRequest(
                execution_id=execution.id, follow=query.follow, tail=query.tail, offsets=offsets
            )
            try:
                if execution.state is S.COMPLETED:
                    pieces = self._published(execution, request)
                else:
                    pieces = self._from_node(execution.node_id, request)
                async with aclosing(pieces):
                    async for piece in pieces:
                        if piece is not None:
                            offsets = after(offsets, piece)
                            query = replace(query, tail=None)
                        yield piece
                return
            except LogsUnavailable:
                before, execution = execution, await self._latest(execution)
                if execution.state is S.COMPLETED is not before.state:
                    continue  # its node has just published it
                if not query.follow or execution.state not in _RUNS:
                    raise
            await trio.sleep(RETRY_PAUSE)
            yield None

    async def _latest(self, execution: Execution) -> Execution:
        found = await self._jobs.executions(execution.job_id)
        return next((each for each in found if each.id == execution.id), execution)

    async def _from_node(self, node: PeerID, request: LogRequest) -> AsyncGenerator[LogPiece | None, None]:
        """Raises LogsUnavailable."""
        wanted = request.execution_id
        try:
            with trio.fail_after(OPEN_TIMEOUT):
                stream = await self._open_stream(node, PROTOCOL)
            async with stream:
                with trio.fail_after(OPEN_TIMEOUT):
                    await stream.send_all(encode_request(request))
                answers = FrameReader(stream, MAX_ANSWER)
                while True:
                    frame: bytes | None = None
                    with trio.move_on_after(KEEP_ALIVE) as waiting:
                        frame = await answers.next()
                    if waiting.cancelled_caught:
                        yield None
                        continue
                    answer = LogEnd("it hung up") if frame is None else decode_answer(frame, wanted)
                    if not isinstance(answer, LogEnd):
                        yield answer
                    elif answer.error:
                        raise LogsUnavailable(_missing(wanted, node, answer.error))
                    else:
                        return
        except trio.TooSlowError:
            raise LogsUnavailable(_missing(wanted, node, "it does not answer")) from None
        except (
            PeerUnreachable,
            trio.BrokenResourceError,
            trio.ClosedResourceError,
            RemoteProtocolError,
        ) as e:
            reason = str(e) or "the connection broke"
            raise LogsUnavailable(_missing(request.execution_id, node, reason)) from None

    async def _published(
        self, execution: Execution, request: LogRequest
    ) -> AsyncGenerator[LogPiece | None, None]:
        """From the result, or if nobody has it, the beginning that its proposal had."""
        proposal = execution.proposal
        output = proposal.output if proposal is not None else RunOutput()
        for stream in LogStream:
            name = stream.name.lower()
            offset = request.offsets[stream - 1]
            inline = output.stdout if stream is LogStream.STDOUT else output.stderr
            whole = not (output.stdout_truncated if stream is LogStream.STDOUT else output.stderr_truncated)
            cid = proposal.entries.get(name) if proposal is not None else None
            if whole and request.tail is None:
                for start in range(offset, len(inline), MAX_PIECE):
                    yield LogPiece(execution.id, stream, start, inline[start : start + MAX_PIECE])
            elif cid is not None:
                try:
                    hints = (execution.node_id,)
                    async with aclosing(self._read_file(cid, hints, offset, request.tail)) as chunks:
                        async for begin, chunk in chunks:
                            for start in range(0, len(chunk), MAX_PIECE):
                                data = chunk[start : start + MAX_PIECE]
                                yield LogPiece(execution.id, stream, begin + start, data)
                except ContentError as error:
                    raise LogsUnavailable(f"{name} of the result cannot be read: {error}") from error


def _chosen(executions: Sequence[Execution], query: LogQuery, done: set[ExecutionID]) -> Execution | None:
    """Whose output is read next: what runs or has a result before what has not."""
    placed = [each for each in executions if each.slot is not None and each.id not in done]
    if query.execution:
        return next((each for each in placed if each.id.startswith(query.execution)), None)
    if done:  # what took their place; other slots are not followed
        read = [each for each in executions if each.id in done]
        newest, slots = max(each.created for each in read), {each.slot for each in read}
        placed = [each for each in placed if each.created > newest and each.slot in slots]
    if not placed:
        return None
    preferred = [each for each in placed if each.state is S.COMPLETED or each.state in _RUNS]
    return preferred[0] if preferred else placed[-1]


def _nothing(job_id: JobID, query: LogQuery) -> str:
    if query.execution:
        return f"no execution of job {job_id} whose id begins with {query.execution} has begun"
    return f"no execution of job {job_id} has begun, so it has no output"


def _missing(execution_id: ExecutionID, node: PeerID, reason: str) -> str:
    return f"the output of execution {execution_id} cannot be read from node {node[-8:]}: {reason}"
