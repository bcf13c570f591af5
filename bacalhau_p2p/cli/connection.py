"""A node's HTTP API for the command line: synchronous, over `http.client`, because a command should
answer before httpx and pydantic would be imported."""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode

from bacalhau_p2p.errors import ApiError, BacalhauError, NodeUnavailable
from bacalhau_p2p.model.api_errors import error_from_json

JOBS = "/api/v1/orchestrator/jobs"
CONTENT = "/api/v1/content"

_ANSWER_WITHIN = 30.0
_SUBMIT_ATTEMPTS = 3
_PEERS_PATIENCE = 600.0
"""Seconds between two pieces of content: the node may have to find a peer that has it."""

_REUSE_WITHIN = 2.0
"""Seconds after which a kept-alive connection may have been closed by the node: a new one is opened."""

_PIECE = 1024 * 1024

JSON = dict[str, Any]

Progress = Callable[[int, int | None], None]


class Connection:
    """One kept-alive connection to a node, opened with the first request.

    Every method raises NodeUnavailable when no node answers, and what the node says is wrong.
    """

    def __init__(self, host: str, port: int, *, token: str = "") -> None:
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._answered = 0.0
        try:
            self._http = http.client.HTTPConnection(host, port, timeout=_ANSWER_WITHIN)
        except http.client.InvalidURL:
            raise ApiError(f"{host!r} is not the name or address of a host") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def submit(self, job: JSON) -> str:
        """Submit a job and return its id. Raises InvalidJob."""
        # The same token in each attempt: a submission whose answer was lost is not heeded twice.
        body = json.dumps({"Job": job, "IdempotencyToken": os.urandom(16).hex()}).encode()
        for attempt in range(1, _SUBMIT_ATTEMPTS + 1):
            try:
                answer = self._json("PUT", JOBS, body=body, headers={"Content-Type": "application/json"})
                return _text(answer, "JobID")
            except _AnswerLost:
                if attempt == _SUBMIT_ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    def job(self, job_id: str, *, wait: float = 0.0) -> tuple[JSON, list[JSON]]:
        """The job of this id, or of an id that begins so, with its executions: as soon as it has ended,
        or as it is after `wait` seconds. Raises UnknownJob, AmbiguousID."""
        params = {"include": "executions", **({"wait": f"{wait:g}"} if wait else {})}
        answer = self._json("GET", _of(job_id), params=params, wait=wait)
        return _map(answer, "Job"), items_of(answer.get("Executions"))

    def jobs(self, *, limit: int, id_prefix: str = "") -> list[JSON]:
        """The latest jobs whose id begins so, newest first; with `Executions` where the node adds them."""
        params = {"limit": str(limit), "order_by": "created_at", "reverse": "true", "include": "executions"}
        if id_prefix:
            params["id_prefix"] = id_prefix
        return items_of(self._json("GET", JOBS, params=params))

    def results(self, job_id: str) -> list[JSON]:
        """Where the published results of a job can be had."""
        return items_of(self._json("GET", _of(job_id, "results")))

    def cancel(self, job_id: str, reason: str) -> None:
        self._json("DELETE", _of(job_id), params={"reason": reason})

    def node(self) -> JSON:
        return self._json("GET", "/api/v1/agent/node")

    def version(self) -> JSON:
        return self._json("GET", "/api/v1/agent/version")

    def add(self, path: Path, *, profile: str = "default") -> str:
        """Give a file or folder to the node and return its CID. Raises ContentError."""
        from bacalhau_p2p.ipfs.files.importer import PROFILES
        from bacalhau_p2p.ipfs.files.pack import Packed
        from bacalhau_p2p.ipfs.format.car import CAR_MEDIA_TYPE

        packed = Packed(path, profile=PROFILES[profile])
        answer = self._json(
            "PUT",
            CONTENT,
            params={"root": "last"},
            body=iter(packed),
            headers={"Content-Type": CAR_MEDIA_TYPE, "Transfer-Encoding": "chunked"},
        )
        cid = _text(answer, "CID")
        if cid != str(packed.root):
            raise ApiError(f"the node took {path} for {cid}, but it is {packed.root}")
        return cid

    def fetch(
        self,
        cid: str,
        target: Path,
        *,
        providers: Sequence[str] = (),
        path: Sequence[str] = (),
        progress: Progress = lambda done, total: None,
    ) -> None:
        """Write the content of a CID, or what lies at a path below it, to `target`: a new path, or an
        empty folder. `providers` are multiaddrs of peers that may have it; `progress` is told how many
        bytes came, of how many where that is known. Raises ContentError."""
        from bacalhau_p2p.client.download import Download
        from bacalhau_p2p.ipfs.format.car import CAR_MEDIA_TYPE
        from bacalhau_p2p.ipfs.format.cid import CID

        root = CID.parse(cid)
        query = urlencode([("format", "car"), *(("provider", address) for address in providers)])
        where = "/".join(quote(name, safe="") for name in (str(root), *path))
        with self._answering(
            "GET", f"/ipfs/{where}?{query}", headers={"Accept": CAR_MEDIA_TYPE}, wait=_PEERS_PATIENCE
        ) as response:
            if response.status != http.client.OK:
                raise self._error(response)
            total, done = response.headers.get("X-Content-Size", ""), 0
            with Download(
                root, target, path=path, existing="merge" if target.is_dir() else "refuse"
            ) as download:
                for piece in _pieces(response):
                    download.feed(piece)
                    done += len(piece)
                    progress(done, int(total) if total.isascii() and total.isdigit() else None)
                download.finish()

    def content(self) -> JSON:
        """What is pinned on the node (`Items`), and how much of its quota is used."""
        return self._json("GET", CONTENT)

    def pin(self, cid: str, *, keep: str = "") -> JSON:
        """Have the node keep a CID, for a time such as `7d` or until it is unpinned. Raises ContentError."""
        params = {"keep": keep} if keep else {}
        return self._json("PUT", f"{CONTENT}/pins/{quote(cid, safe='')}", params=params, wait=_PEERS_PATIENCE)

    def unpin(self, cid: str, *, owner: str) -> None:
        """Have the node let go of a CID. Raises ContentNotFound when that owner has not pinned it."""
        self._json("DELETE", f"{CONTENT}/pins/{quote(cid, safe='')}", params={"owner": owner})

    def collect_garbage(self) -> JSON:
        """Have the node remove every block that nobody needs: how many (`Blocks`, `Bytes`)."""
        return self._json("POST", f"{CONTENT}/gc", wait=_PEERS_PATIENCE)

    def _json(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        wait: float = 0.0,
    ) -> JSON:
        target = f"{path}?{urlencode(params)}" if params else path
        with self._answering(method, target, body=body, headers=headers, wait=wait) as response:
            if response.status != http.client.OK:
                raise self._error(response)
            answer = _decoded(response)
        if not isinstance(answer, dict):
            raise ApiError(f"what listens at {self.address} is not a node of ours", status=response.status)
        return answer

    @contextmanager
    def _answering(
        self,
        method: str,
        target: str,
        *,
        body: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        wait: float = 0.0,
    ) -> Iterator[http.client.HTTPResponse]:
        """The answer to one request; whatever breaks while it is read is told as NodeUnavailable."""
        try:
            self._connect()
            self._http.sock.settimeout(_ANSWER_WITHIN + wait)
            all_headers = {**self._headers, **(headers or {})}
            chunked = "Transfer-Encoding" in all_headers
            try:
                self._http.request(method, target, body=body, headers=all_headers, encode_chunked=chunked)
            except (BrokenPipeError, ConnectionResetError):
                # Refused before all of it was read; why may be there to be read.
                if not chunked:
                    raise
            yield self._http.getresponse()
            self._answered = time.monotonic()
        except BacalhauError:
            self._http.close()
            raise
        except TimeoutError:
            self._http.close()
            raise _AnswerLost(f"the node at {self.address} does not answer") from None
        except (ConnectionError, http.client.HTTPException):
            self._http.close()
            raise _AnswerLost(f"the connection to the node at {self.address} broke") from None

    def _connect(self) -> None:
        if self._http.sock is not None:
            if time.monotonic() - self._answered < _REUSE_WITHIN:
                return
            self._http.close()
        try:
            self._http.connect()
        except OSError:
            self._http.close()
            raise NodeUnavailable(f"no node listens at {self.address}") from None

    def _error(self, response: http.client.HTTPResponse) -> BacalhauError:
        return error_from_json(_decoded(response), status=response.status)


class _AnswerLost(NodeUnavailable):
    """The request may have been heeded, but its answer did not come."""


def _pieces(response: http.client.HTTPResponse) -> Iterator[memoryview | bytes]:
    """The body of an answer, each piece to be used before the next is asked for, as they share their memory;
    of one that breaks off what came, which may say why, and then its error."""
    memory = memoryview(bytearray(_PIECE))
    try:
        while size := response.readinto(memory):
            yield memory[:size]
    except http.client.IncompleteRead as broken:
        yield broken.partial
        raise


def items_of(answer: object) -> list[JSON]:
    """The maps in an `{"Items": [...]}`; none where there is no such thing."""
    items = answer.get("Items") if isinstance(answer, dict) else None
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _of(job_id: str, *parts: str) -> str:
    return "/".join((JOBS, quote(job_id, safe=""), *parts))


def _decoded(response: http.client.HTTPResponse) -> object:
    try:
        return json.loads(response.read())
    except ValueError:
        return None


def _map(answer: JSON, key: str) -> JSON:
    value = answer.get(key)
    if not isinstance(value, dict):
        raise ApiError(f"the node's answer cannot be understood: it has no {key}")
    return value


def _text(answer: JSON, key: str) -> str:
    value = answer.get(key)
    if not isinstance(value, str) or not value:
        raise ApiError(f"the node's answer cannot be understood: it has no {key}")
    return value
