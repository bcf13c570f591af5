"""A small server with the HTTP API of a node, for tests of clients: jobs end when the test says so."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs, unquote, urlsplit

from bacalhau_p2p.errors import AmbiguousID, ApiError, BacalhauError, ContentNotFound, UnknownJob
from bacalhau_p2p.ipfs.files.importer import build
from bacalhau_p2p.ipfs.format.car import CarReader, write_car
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.model.api_errors import error_to_json, status_of
from bacalhau_p2p.model.api_json import event_to_json, execution_to_json, job_to_json, result_to_json
from bacalhau_p2p.model.api_nodes import node_state_to_json, node_to_json
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import Execution, Job, Proposal, PublishedResult, RunOutput
from bacalhau_p2p.model.history import EventKind, HistoryEvent
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.logs import LogPiece
from bacalhau_p2p.model.logs_json import piece_to_json
from bacalhau_p2p.model.node import ComputeInfo, NodeInfo
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.model.resources import Resources
from bacalhau_p2p.model.state import ExecutionState, JobState

NODE = PeerID("12D3KooWFakeNodeOfTheTestsThatRunsNothingAtAll")
_JOBS = "/api/v1/orchestrator/jobs"
INFO = NodeInfo(
    id=NODE,
    addresses=("/ip4/127.0.0.1/tcp/1235/p2p/" + NODE,),
    requester=True,
    labels={"zone": "lab"},
    version="9.9.9",
    compute=ComputeInfo(engines=("docker", "noop"), max_capacity=Resources(cpu=2, memory=4_000_000_000)),
)


class FakeNode:
    """Listens on `port` for the length of a `with` block. `requests` has the requests in order."""

    def __init__(self, *, port: int = 0, started: bool = True) -> None:
        """With `started` false it neither listens nor answers before `start`."""
        self.changed = threading.Condition()
        self.jobs: dict[str, Job] = {}
        self.left_out: list[str] = []
        """What the latest submission said that its inputs lack."""
        self.tokens: dict[str, str] = {}
        self.executions: dict[str, list[Execution]] = {}
        self.histories: dict[str, list[HistoryEvent]] = {}
        self.logs: dict[str, list[LogPiece]] = {}
        self.blocks: dict[CID, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.pins: list[tuple[str, str]] = []
        """CIDs, and their owners."""
        self.about: dict[str, Any] = {}
        """What `agent/node` says in addition."""
        self.authorizations: list[str] = []
        self.on_submit: Callable[[Job], None] = lambda job: None
        """Called with each new job, for example to end it."""
        self.lose_responses = 0
        """How many requests are carried out without a response: the connection is closed instead."""
        self.raw_response: tuple[int, bytes] | None = None
        """Status and body of every response, if set."""
        self.truncate_cars = False
        self.last_event_ids: list[int] = []
        """The event after which each stream of events was to go on."""
        self.cut_logs_after: list[int] = []
        """Numbers of pieces after which a response with logs breaks."""
        self.break_streams_after: list[int] = []
        """Numbers of events after which a stream of events breaks once."""
        self.streams = 0
        """Streams of events that go on now."""
        self.respond_early = False
        """Respond to long polls at once, like a node that is shutting down."""
        self.waiting = self.waited = 0
        """Long polls that are waiting now, and those that have waited."""
        self._stopping = False
        self._port, self._started = port, started
        self._server: _Server | None = None

    def __enter__(self) -> Self:
        if self._started:
            self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.crash()

    def start(self) -> None:
        self._server = _Server(("127.0.0.1", self._port), _handler(self))
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def crash(self) -> None:
        """Stop listening, and close every connection without a response."""
        if self._server is None:
            return
        with self.changed:
            self._stopping = True
            self.changed.notify_all()
            ended = self.changed.wait_for(lambda: self.streams == 0, timeout=20)
        assert ended, "a stream of events goes on without its node, and would until the tests end"
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server = None

    @property
    def port(self) -> int:
        return self._port

    @property
    def stopped(self) -> bool:
        return self._stopping

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # --- what tests do -----------------------------------------------------------------------

    def add_job(self, job_id: str, job: Mapping[str, Any] | None = None, *, created: float = 0.0) -> Job:
        spec = job_from_mapping(job or {"Tasks": [{"Engine": {"Type": "noop"}}]})
        added = Job(
            id=JobID(job_id),
            spec=spec,
            state=JobState.PENDING,
            requester_id=NODE,
            created=created or time.time(),
            modified=created or time.time(),
        )
        with self.changed:
            self.jobs[job_id] = added
            self.executions[job_id] = []
            self.histories[job_id] = []
        return added

    def tell(self, job_id: str, kind: EventKind, message: str, *about: str) -> HistoryEvent:
        """Add an event; `about` are the state, the execution and its node, as far as there is one."""
        with self.changed:
            history = self.histories[job_id]
            event = HistoryEvent(JobID(job_id), len(history) + 1, time.time(), kind, message, *about)
            history.append(event)
            self.changed.notify_all()
        return event

    def set_state(self, job_id: str, state: JobState, message: str = "") -> None:
        with self.changed:
            job = self.jobs[job_id]
            self.jobs[job_id] = job.replace(state=state, message=message, revision=job.revision + 1)
            self.changed.notify_all()

    def complete(self, job_id: str, folder: Path, output: RunOutput | None = None) -> CID:
        """Complete a job, with the content of `folder` as its result."""
        cid = build(folder, self.blocks.__setitem__).cid
        self.executions[job_id].append(completed_execution(job_id, cid, output or RunOutput()))
        self.set_state(job_id, JobState.COMPLETED)
        return cid

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Block until a long poll or a change of state has made this true."""
        with self.changed:
            assert self.changed.wait_for(condition, timeout=60)

    def get(self, cid: CID) -> bytes | None:
        return self.blocks.get(cid)

    def size(self, cid: CID) -> int | None:
        return len(self.blocks[cid]) if cid in self.blocks else None

    # --- what the API does ---------------------------------------------------------------------

    def find(self, prefix: str) -> Job:
        if prefix in self.jobs:
            return self.jobs[prefix]
        found = [job for job_id, job in self.jobs.items() if job_id.startswith(prefix)]
        if not found:
            raise UnknownJob(f"no job has the id {prefix}")
        if len(found) > 1:
            raise AmbiguousID(f"{len(found)} jobs have an id that begins with {prefix}")
        return found[0]

    def wait(self, prefix: str, seconds: float) -> Job:
        with self.changed:
            job = self.find(prefix)
            self.waiting += 1
            self.changed.notify_all()
            self.changed.wait_for(
                lambda: self._stopping or self.respond_early or self.jobs[job.id].state.terminal,
                timeout=seconds,
            )
            self.waiting -= 1
            self.waited += 1
            self.changed.notify_all()
            return self.jobs[job.id]

    def events(self, job_id: str, after: int, seconds: float) -> dict[str, Any]:
        with self.changed:
            self.waiting += 1
            self.changed.notify_all()
            self.changed.wait_for(
                lambda: (
                    self._stopping
                    or self.respond_early
                    or len(self.histories[job_id]) > after
                    or self.jobs[job_id].state.terminal
                ),
                timeout=seconds,
            )
            self.waiting -= 1
            events = self.histories[job_id][after:]
            ended = self.jobs[job_id].state.terminal
            last = events[-1].number if events else after
            return {"Items": [event_to_json(e) for e in events], "NextToken": "" if ended else str(last)}

    def feed(self, query: Mapping[str, list[str]]) -> dict[str, Any]:
        """Events of all jobs: it knows `after`, `wait`, `job` and `kind`."""

        def told() -> list[HistoryEvent]:
            return sorted((event for each in self.histories.values() for event in each), key=lambda e: e.time)

        after = int(query.get("after", [str(len(told()))])[0])
        if "wait" in query:
            with self.changed:
                self.waiting += 1
                self.changed.notify_all()
                self.changed.wait_for(lambda: self._stopping or len(told()) > after, timeout=60)
                self.waiting -= 1
        placed = [event._replace(place=place) for place, event in enumerate(told(), start=1)]
        items = [
            event_to_json(event)
            for event in placed[after:]
            if event.kind in query.get("kind", [event.kind])
            and event.job_id in query.get("job", [event.job_id])
        ]
        return {"Items": items, "NextToken": str(len(placed))}

    def submit(self, body: Mapping[str, Any]) -> Job:
        token = body.get("IdempotencyToken", "")
        with self.changed:  # requests come in threads, and no two jobs may get one id
            if token in self.tokens:
                return self.jobs[self.tokens[token]]
            job = self.add_job(f"{len(self.jobs):08x}-0000-4000-8000-000000000000", body["Job"])
            if token:
                self.tokens[token] = job.id
        self.left_out = body.get("LeftOut", [])
        self.on_submit(job)
        return job

    def store(self, car: bytes) -> CID:
        reader = CarReader()
        self.blocks.update(reader.feed(car))
        reader.finish()
        root = reader.roots[0] if reader.roots else reader.latest
        assert root is not None
        return root


class _Cut(NamedTuple):
    """A body, and whether it breaks off."""

    body: bytes
    cut: bool


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that disconnect."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def completed_execution(job_id: str, cid: CID, output: RunOutput) -> Execution:
    execution_id = ExecutionID(f"e-{job_id}")
    return Execution(
        id=execution_id,
        job_id=JobID(job_id),
        node_id=NODE,
        state=ExecutionState.COMPLETED,
        created=1.0,
        modified=2.0,
        proposal=Proposal(
            job_id=JobID(job_id),
            execution_id=execution_id,
            node_id=NODE,
            result_cid=str(cid),
            output=output,
        ),
        published=PublishedResult(
            cid=str(cid), location=SpecConfig(type="ipfs", params={"CID": str(cid), "Providers": []})
        ),
    )


def _handler(node: FakeNode) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            """Print nothing."""

        def handle_any(self) -> None:
            node.requests.append((self.command, unquote(self.path)))
            if authorization := self.headers.get("Authorization"):
                node.authorizations.append(authorization)
            body = self._body()
            if node.raw_response is not None:
                return self._reply(*node.raw_response)
            if self.headers.get("Accept") == "text/event-stream":
                return self._stream_events()
            try:
                status, answer = self._route(body)
            except BacalhauError as error:
                status, answer = status_of(error), error_to_json(error)
            if node.lose_responses or node.stopped:
                node.lose_responses -= not node.stopped
                self.close_connection = True
                return None
            if isinstance(answer, _Cut):
                return self._stream(answer)
            if isinstance(answer, bytes):
                return self._reply(status, answer)
            return self._reply(status, json.dumps(answer).encode())

        do_GET = do_PUT = do_DELETE = handle_any  # noqa: N815 - http.server's names

        def _stream_events(self) -> None:
            with node.changed:
                node.streams += 1
            try:
                self._send_events()
            finally:
                with node.changed:
                    node.streams -= 1
                    node.changed.notify_all()

        def _send_events(self) -> None:
            job_id = self.path.split("/")[-2]
            after = int(self.headers.get("Last-Event-ID", 0))
            node.last_event_ids.append(after)
            page = node.events(job_id, after, 0)
            if node.stopped:
                self.close_connection = True
                return None
            if not page["Items"] and not page["NextToken"]:
                return self._reply(204, b"")
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            while not node.stopped:
                for event in page["Items"]:
                    after = event["SeqNum"]
                    self._chunk(
                        b"id: %d\ndata: %b\n\n" % (after, json.dumps(event, ensure_ascii=False).encode())
                    )
                    if after in node.break_streams_after:
                        node.break_streams_after.remove(after)
                        self.close_connection = True
                        return None
                if not page["NextToken"]:
                    return self._chunk(b"")
                page = node.events(job_id, after, 20)
            self.close_connection = True
            return None

        def _stream(self, answer: _Cut) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            if answer.body:
                self._chunk(answer.body)
            if answer.cut:
                self.close_connection = True
            else:
                self._chunk(b"")

        def _chunk(self, data: bytes) -> None:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b""
            while size := self._chunk_size():
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def _chunk_size(self) -> int:
            line = self.rfile.readline()
            if not line:
                raise ConnectionAbortedError
            return int(line, 16)

        def _reply(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _route(self, body: bytes) -> tuple[int, Any]:
            url = urlsplit(self.path)
            path = url.path
            if path == "/api/v1/events":
                return 200, node.feed(parse_qs(url.query))
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            if self.command == "PUT" and path == _JOBS:
                job = node.submit(json.loads(body))
                return 200, {"JobID": job.id, "EvaluationID": "", "Warnings": []}
            if self.command == "PUT" and path == "/api/v1/content":
                return 200, {"CID": str(node.store(body))}
            if path.startswith("/ipfs/"):
                return 200, _car(node, path.removeprefix("/ipfs/"))
            if path == "/api/v1/content":
                return 200, {"Items": [{"CID": cid, "Owner": owner} for cid, owner in node.pins]}
            if path == "/api/v1/agent/alive":
                return 200, {"Status": "OK"}
            if path == "/api/v1/agent/version":
                return 200, {"GitVersion": "v9.9.9"}
            if path == "/api/v1/agent/node":
                return 200, {**node_to_json(INFO), **node.about}
            if path == "/api/v1/orchestrator/nodes":
                return 200, {"Nodes": [_node_state()], "NextToken": ""}
            if path == f"/api/v1/orchestrator/nodes/{NODE}":
                return 200, {"Node": _node_state()}
            if self.command == "PUT" and (match := re.fullmatch(f"{_JOBS}/([^/]+)/rerun", path)):
                again = node.submit({"Job": node.find(match[1]).spec.model_dump(mode="json", by_alias=True)})
                return 200, {"JobID": again.id}
            if path == _JOBS:
                return 200, {"Items": _listed(node, query), "NextToken": ""}
            if match := re.fullmatch(f"{_JOBS}/([^/]+)(?:/(executions|results|events|logs))?", path):
                return 200, _job(node, self.command, unquote(match[1]), match[2], query)
            return 404, error_to_json(ApiError(f"there is nothing at {path}", status=404))

    return Handler


def _job(node: FakeNode, method: str, prefix: str, part: str | None, query: Mapping[str, str]) -> Any:
    job = node.find(prefix)
    executions = node.executions[job.id]
    if method == "DELETE":
        if not job.state.terminal:
            node.set_state(job.id, JobState.STOPPED, query.get("reason", ""))
        return {"EvaluationID": ""}
    if part == "executions":
        return _executions(node, job.id)
    if part == "events":
        return node.events(job.id, int(query.get("after", 0)), float(query.get("wait", 0)))
    if part == "logs":
        cut = node.cut_logs_after.pop() if node.cut_logs_after else None
        told = node.logs.get(job.id, [])[:cut]
        pieces = [json.dumps(piece_to_json(piece), ensure_ascii=False) for piece in told]
        return _Cut("".join(f"{piece}\n\n" for piece in pieces).encode(), cut=cut is not None)
    if part == "results":
        published = [execution.published for execution in executions]
        return {"Items": [result_to_json(result) for result in published if result]}
    job = node.wait(prefix, float(query.get("wait", 0)))
    answer: dict[str, Any] = {"Job": job_to_json(job)}
    if query.get("include") == "executions":
        answer["Executions"] = _executions(node, job.id)
    return answer


def _node_state() -> dict[str, Any]:
    return node_state_to_json(INFO, fresh=True, heard=2.0, since=1.0, stale_at=47.0)


def _executions(node: FakeNode, job_id: str) -> dict[str, Any]:
    spec = node.jobs[job_id].spec
    return {"Items": [execution_to_json(execution, spec) for execution in node.executions[job_id]]}


def _listed(node: FakeNode, query: Mapping[str, str]) -> list[Any]:
    prefix = query.get("id_prefix", "")
    jobs = [job for job_id, job in node.jobs.items() if job_id.startswith(prefix)]
    jobs.sort(key=lambda job: job.created, reverse=query.get("reverse") == "true")
    listed = [job_to_json(job) for job in jobs[: int(query.get("limit", 10))]]
    if query.get("include") != "executions":
        return listed
    return [{**job, "Executions": _executions(node, job["ID"])} for job in listed]


def _car(node: FakeNode, text: str) -> bytes:
    root = CID.parse(text.partition("/")[0])
    if root.v1 not in node.blocks:
        raise ContentNotFound(f"nobody has {root}")
    pieces = list(write_car([root], node))  # the header, then head and block of each
    return b"".join(pieces[:-2] if node.truncate_cars else pieces)
