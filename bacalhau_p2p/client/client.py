"""A requester on the other side of HTTP: what `open_node` offers in this process, from afar.

async with Client("http://127.0.0.1:1234") as client:
    job = await client.submit({"Tasks": [{"Engine": {"Type": "noop"}}]})
    result = await job.wait_result()
    await result.fetch("results")
"""

from __future__ import annotations

import math
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
import trio

from bacalhau_p2p.client.download import Download
from bacalhau_p2p.client.jobs import Backend, JobHandle, JobLike, submit_job
from bacalhau_p2p.errors import ApiError, ContentNotFound, InvalidCID, NodeUnavailable
from bacalhau_p2p.ipfs.files.pack import Packed
from bacalhau_p2p.ipfs.format.car import CAR_MEDIA_TYPE
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.model.api_json import (
    error_from_json,
    execution_from_json,
    job_from_json,
    node_from_json,
    result_from_json,
)
from bacalhau_p2p.model.base import JobID
from bacalhau_p2p.model.execution import Execution, Job, PublishedResult
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.node import NodeInfo

JOBS = "/api/v1/orchestrator/jobs"
NODES = "/api/v1/orchestrator/nodes"
CONTENT = "/api/v1/content"

LONG_POLL = 60.0
"""Seconds that one request waits for a job to end before it is asked again."""

_ANSWER_WITHIN = 30.0
_EARLY_ANSWER_PAUSE = 1.0
_SUBMIT_ATTEMPTS = 3
_PIECE = 1024 * 1024

_T = TypeVar("_T")


class HttpBackend:
    """The `Backend` behind a node's HTTP API. Every method raises NodeUnavailable, and ApiError for
    an answer that makes no sense, beside what `Backend` says. Opened by `Client`."""

    def __init__(self, http: httpx.AsyncClient, url: str) -> None:
        self._http = http
        self.url = url

    async def submit(self, spec: JobSpec, *, idempotency_token: str | None = None) -> JobID:
        body = {
            "Job": spec.model_dump(mode="json", by_alias=True),
            # With a token of its own, a submission whose answer was lost can be said again.
            "IdempotencyToken": idempotency_token or uuid.uuid4().hex,
        }
        for attempt in range(1, _SUBMIT_ATTEMPTS + 1):
            try:
                answer = await self.request("PUT", JOBS, json=body)
                break
            except _AnswerLost:
                if attempt == _SUBMIT_ATTEMPTS:
                    raise
        return JobID(_read(lambda: _text(answer, "JobID")))

    async def job(self, job_id: JobID) -> Job:
        return _job(await self.request("GET", _of(job_id)))

    async def wait(self, job_id: JobID, timeout: float | None) -> Job:
        deadline = math.inf if timeout is None else trio.current_time() + timeout
        while True:
            asked = trio.current_time()
            patience = max(0.0, min(LONG_POLL, deadline - asked))
            answer = await self.request("GET", _of(job_id), params={"wait": f"{patience:.3f}"}, wait=patience)
            job = _job(answer)
            if job.state.terminal or trio.current_time() >= deadline:
                return job
            if trio.current_time() - asked < patience / 2:
                # A node that is shutting down answers before its time: do not ask it in a tight loop.
                await trio.sleep(min(_EARLY_ANSWER_PAUSE, deadline - trio.current_time()))

    async def executions(self, job_id: JobID) -> Sequence[Execution]:
        answer = await self.request("GET", _of(job_id, "executions"))
        return _read(lambda: [execution_from_json(item) for item in answer["Items"]])

    async def results(self, job_id: JobID) -> Sequence[PublishedResult]:
        answer = await self.request("GET", _of(job_id, "results"))
        return _read(lambda: [result_from_json(item) for item in answer["Items"]])

    async def cancel(self, job_id: JobID, reason: str) -> None:
        await self.request("DELETE", _of(job_id), params={"reason": reason})

    async def jobs(self, *, limit: int, id_prefix: str) -> Sequence[Job]:
        params = {"limit": str(limit), "order_by": "created_at", "reverse": "true", "id_prefix": id_prefix}
        answer = await self.request("GET", JOBS, params=params)
        return _read(lambda: [job_from_json(item) for item in answer["Items"]])

    async def nodes(self) -> Sequence[NodeInfo]:
        answer = await self.request("GET", NODES)
        return _read(lambda: [node_from_json(item) for item in answer["Items"]])

    async def export(self, cid: str, target: Path, *, hints: Sequence[str] = ()) -> None:
        root = CID.parse(cid)
        async with self._streamed(root, hints) as pieces:
            download = await trio.to_thread.run_sync(Download, root, target)
            try:
                async for piece in pieces:
                    await trio.to_thread.run_sync(download.feed, piece)
                await trio.to_thread.run_sync(download.finish, trio.from_thread.check_cancelled)
            finally:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(download.close)

    async def add(self, path: Path) -> str:
        """Give a file or folder to the node, which keeps it, and return its CID. Raises ContentError."""
        packed = Packed(path)
        answer = await self.request(
            "PUT",
            CONTENT,
            params={"root": "last"},
            content=_in_threads(iter(packed)),
            headers={"Content-Type": CAR_MEDIA_TYPE},
        )
        cid = _read(lambda: CID.parse(_text(answer, "CID")))
        if cid != packed.root:
            raise ApiError(f"the node took {path} for {cid}, but it is {packed.root}")
        return str(cid)

    async def request(
        self, method: str, path: str, *, wait: float = 0.0, **options: Any
    ) -> Mapping[str, Any]:
        """One request and its JSON answer; `wait` is how long the node was asked to hold it back."""
        with _translated(self.url):
            response = await self._http.request(
                method, path, timeout=httpx.Timeout(_ANSWER_WITHIN, read=_ANSWER_WITHIN + wait), **options
            )
        return _answer(response, self.url)

    @asynccontextmanager
    async def _streamed(self, root: CID, hints: Sequence[str]) -> AsyncIterator[AsyncIterator[bytes]]:
        # No limit between two pieces: the node may have to find a peer that has the content first.
        timeout = httpx.Timeout(_ANSWER_WITHIN, read=None)
        with _translated(self.url):
            async with self._http.stream(
                "GET",
                f"/ipfs/{root}",
                params={"format": "car", "provider": list(hints)},
                headers={"Accept": CAR_MEDIA_TYPE},
                timeout=timeout,
            ) as response:
                if response.status_code != httpx.codes.OK:
                    await response.aread()
                    _answer(response, self.url)
                    raise ContentNotFound(f"{root} is not on this node")
                yield _gathered(response.aiter_bytes())


class Client:
    """A node's HTTP API, for the length of an `async with` block; cancelling any method harms nothing.

    `token` is sent with every request, where the node asks for one.
    """

    def __init__(self, url: str = "http://127.0.0.1:1234", *, token: str = "") -> None:
        self.url = url.rstrip("/")
        # Nodes are reached directly: a proxy of the environment would catch even those on loopback.
        self._http = httpx.AsyncClient(
            base_url=self.url,
            trust_env=False,
            headers={"Authorization": f"Bearer {token}"} if token else None,
        )
        self._backend = HttpBackend(self._http, self.url)

    @property
    def backend(self) -> Backend:
        return self._backend

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def submit(self, job: JobLike, *, idempotency_token: str | None = None) -> JobHandle:
        """Submit a job: a `JobSpec`, a mapping, or JSON or YAML text. It is durable when this returns.

        Raises InvalidJob with every fault by its path.
        """
        return await submit_job(self._backend, job, idempotency_token=idempotency_token)

    async def job(self, job_id: str) -> JobHandle:
        """The job of this id, or of an id that begins so. Raises UnknownJob, AmbiguousID."""
        return JobHandle(self._backend, (await self._backend.job(JobID(job_id))).id)

    async def jobs(self, *, limit: int = 10, id_prefix: str = "") -> Sequence[Job]:
        """The latest jobs, newest first, of those whose id begins so."""
        return await self._backend.jobs(limit=limit, id_prefix=id_prefix)

    async def nodes(self) -> Sequence[NodeInfo]:
        """The nodes that this one knows, itself included."""
        return await self._backend.nodes()

    async def add(self, path: Path | str) -> str:
        """Give a file or folder to the node, which keeps it, and return its CID. Raises ContentError."""
        return await self._backend.add(Path(path))

    async def fetch(self, cid: str, target: Path | str) -> Path:
        """Write the content of `cid` to `target`, which must not exist. Raises ContentError."""
        await self._backend.export(cid, Path(target))
        return Path(target)


class _AnswerLost(NodeUnavailable):
    """The connection broke after the request was sent: whether it was heeded is not known."""


@contextmanager
def _translated(url: str) -> Iterator[None]:
    """Turns httpx's errors into ours."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout):
        raise NodeUnavailable(f"no node listens at {url}") from None
    except httpx.TimeoutException:
        raise _AnswerLost(f"the node at {url} does not answer") from None
    except (httpx.UnsupportedProtocol, httpx.InvalidURL):
        raise ApiError(f"{url!r} is not the address of a node, such as http://127.0.0.1:1234") from None
    except httpx.RequestError as error:
        raise _AnswerLost(f"the connection to the node at {url} broke") from error


def _of(job_id: str, *parts: str) -> str:
    return "/".join((JOBS, quote(job_id, safe=""), *parts))


def _answer(response: httpx.Response, url: str) -> Mapping[str, Any]:
    try:
        body = response.json()
    except ValueError:
        body = None
    if response.is_error:
        raise error_from_json(body, status=response.status_code)
    if not isinstance(body, Mapping):
        raise ApiError(f"what listens at {url} is not a node of ours", status=response.status_code)
    return body


def _job(answer: Mapping[str, Any]) -> Job:
    return _read(lambda: job_from_json(answer["Job"]))


def _read(reader: Callable[[], _T]) -> _T:
    try:
        return reader()
    except (KeyError, TypeError, ValueError, InvalidCID) as error:
        raise ApiError(f"the node's answer cannot be understood: {error}") from error


def _text(answer: Mapping[str, Any], key: str) -> str:
    value = answer[key]
    if not isinstance(value, str):
        raise TypeError(f"{key} is not text")
    return value


async def _gathered(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Small pieces as larger ones, also the last before an error: it may say why there is one."""
    gathered = bytearray()
    try:
        async for piece in pieces:
            gathered += piece
            if len(gathered) >= _PIECE:
                yield bytes(gathered)
                gathered.clear()
    except httpx.RequestError:
        yield bytes(gathered)
        raise
    yield bytes(gathered)


async def _in_threads(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The pieces, each made in a thread."""
    while (piece := await trio.to_thread.run_sync(next, pieces, None)) is not None:
        yield piece
