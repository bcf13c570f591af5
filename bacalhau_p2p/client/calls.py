"""Every call of a node's HTTP API as a value: the request to send, and how to read the response.

Does no I/O: `AsyncConnection` and `BlockingConnection` send the requests. Imports nothing slow, because
a command has to start within 0.1 s.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from socket import gaierror
from typing import Any, Generic, TypeVar, cast
from urllib.parse import quote, urlencode

from bacalhau_p2p.errors import ApiError, BacalhauError, NodeUnavailable
from bacalhau_p2p.model.api_errors import error_from_json
from bacalhau_p2p.model.logs import LogPiece
from bacalhau_p2p.model.logs_json import piece_from_json

JSON = dict[str, Any]

JOBS = "/api/v1/orchestrator/jobs"
NODES = "/api/v1/orchestrator/nodes"
EVENTS = "/api/v1/events"
AGENT = "/api/v1/agent"
CONTENT = "/api/v1/content"
GATEWAY = "/ipfs"

RESPONSE_TIMEOUT = 30.0
"""Seconds to wait for a response, or for its next part, beyond what the node was asked to wait."""
FETCH_TIMEOUT = 600.0
"""Seconds more where the node may have to find a peer that has the content, and to fetch it."""
IDLE_LIMIT = 2.0
"""Seconds after which the node may have closed an idle connection, so that a new one is opened."""
LONG_POLL = 60.0
"""Seconds that a node is asked to hold back the response until a job has ended, or an event has happened."""

_SUBMIT_ATTEMPTS = 3
_READ_ATTEMPTS = 3
EARLY_RESPONSE_PAUSE = 1.0

_T = TypeVar("_T")
_U = TypeVar("_U")


class ResponseLost(NodeUnavailable):
    """The connection broke after the request was sent; the node may have carried it out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[_T]):
    """One request and how to read its response."""

    method: str
    path: str
    """Percent-encoded."""
    read: Callable[[JSON], _T]
    """The result from a successful response. Raises KeyError, TypeError, ValueError for a malformed one."""
    query: Sequence[tuple[str, str]] = ()
    body: bytes | Iterable[bytes] = b""
    """Bytes, or pieces that are made while they are sent."""
    content_type: str = "application/json"
    """Of the request body, if there is one."""
    accept: str = "application/json"
    wait: float = 0.0
    """Seconds that the node may take to respond, beyond RESPONSE_TIMEOUT."""
    last_event_id: str = ""
    """The event after which a stream of events goes on."""
    tries: int = 1
    """How often the request is sent while its response gets lost."""

    @property
    def target(self) -> str:
        return f"{self.path}?{urlencode(self.query)}" if self.query else self.path

    @property
    def headers(self) -> dict[str, str]:
        headers = {"Accept": self.accept}
        if self.body:
            headers["Content-Type"] = self.content_type
        if self.last_event_id:
            headers["Last-Event-ID"] = self.last_event_id
        return headers

    @property
    def timeout(self) -> float:
        """Seconds to wait for the response or its next part."""
        return RESPONSE_TIMEOUT + self.wait

    def attempts(self) -> Iterator[AbstractContextManager[None]]:
        """A context for each attempt to send the request; all but the last suppress ResponseLost."""
        for _ in range(self.tries - 1):
            yield suppress(ResponseLost)
        yield nullcontext()

    def then(self, convert: Callable[[_T], _U]) -> Call[_U]:
        """The same request, with its result converted. `convert` raises what `read` may raise."""
        return replace(cast("Call[Any]", self), read=lambda response: convert(self.read(response)))

    def result(self, status: int, body: bytes, *, url: str) -> _T:
        """The result from a whole response. Raises the error in it, and ApiError if it makes no sense."""
        if status != 200:
            raise self.error(status, body)
        response = _decoded(body)
        if not isinstance(response, dict):
            raise ApiError(f"no bacalhau_p2p node at {url}: the response is not JSON", status=status)
        try:
            return self.read(response)
        except KeyError as error:
            raise _malformed(url, f"{error} is missing") from error
        except (TypeError, ValueError) as error:
            raise _malformed(url, str(error)) from error

    def error(self, status: int, body: bytes) -> BacalhauError:
        """The error in a response that has not status 200."""
        return error_from_json(_decoded(body), status=status)


# --- when there is no response ------------------------------------------------------------------


def cannot_connect(url: str, error: BaseException) -> NodeUnavailable:
    """`error` is what connecting failed with, or has that as its cause."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, gaierror):
            return NodeUnavailable(f"cannot find the host of {url}: {cause.strerror}")
        cause = cause.__cause__ or cause.__context__
    return NodeUnavailable(f"no node listens at {url}: start one with `bacalhau-p2p serve`")


def no_response(url: str, timeout: float) -> ResponseLost:
    return ResponseLost(f"no response from {url} within {timeout:g} s")


def connection_broken(url: str) -> ResponseLost:
    return ResponseLost(f"connection to {url} broken")


def pause_between_polls(asked: float, took: float) -> float:
    """Seconds to pause before the next long poll: a node that shuts down responds before its time, and
    must not be asked again in a tight loop."""
    return EARLY_RESPONSE_PAUSE if took < asked / 2 else 0.0


# --- jobs ---------------------------------------------------------------------------------------


def submit_job(job: JSON, *, idempotency_token: str = "", left_out: Sequence[str] = ()) -> Call[str]:
    """Submit a job; the result is its id. With a token, here a random one, it can be sent repeatedly.

    `left_out` is what is missing in inputs that were added for it: its history tells that.
    """
    body: JSON = {"Job": job, "IdempotencyToken": idempotency_token or os.urandom(16).hex()}
    if left_out:
        body["LeftOut"] = list(left_out)
    return Call(
        method="PUT",
        path=JOBS,
        body=json.dumps(body).encode(),
        read=lambda response: text(response, "JobID"),
        tries=_SUBMIT_ATTEMPTS,
    )


def get_job(job_id: str, *, wait: float = 0.0) -> Call[JSON]:
    """The job with this id or prefix of an id: once it has ended, or as it is after `wait` seconds."""
    return Call(
        method="GET",
        path=_job_path(job_id),
        query=_given(wait=f"{wait:.3f}" if wait else ""),
        wait=wait,
        read=lambda response: _object(response, "Job"),
    )


def get_job_with_executions(job_id: str, *, wait: float = 0.0) -> Call[tuple[JSON, list[JSON]]]:
    call = get_job(job_id, wait=wait)
    return replace(
        cast("Call[Any]", call),
        query=(*call.query, ("include", "executions")),
        read=lambda response: (_object(response, "Job"), _items(_object(response, "Executions"))),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs to list, and in which order."""

    id_prefix: str = ""
    labels: Sequence[str] = ()
    """Selectors, as of Kubernetes."""
    state: str = ""
    namespace: str = ""
    order_by: str = "created_at"
    reverse: bool = True
    """The last ones first, which are the newest."""


def list_jobs(*, limit: int, id_prefix: str = "", executions: bool = False) -> Call[list[JSON]]:
    """The latest jobs whose id has this prefix, newest first; on request each with its `Executions`."""
    page = page_of_jobs(JobFilter(id_prefix=id_prefix), limit=limit, executions=executions)
    return page.then(lambda found: found[0])


def page_of_jobs(
    wanted: JobFilter, *, limit: int, next_token: str = "", executions: bool = False
) -> Call[tuple[list[JSON], str]]:
    """A page of jobs, and the token of the next page: empty on the last."""
    query: list[tuple[str, str]] = [("labels", selector) for selector in wanted.labels]
    query += _given(
        limit=str(limit),
        order_by=wanted.order_by,
        reverse="true" if wanted.reverse else "",
        id_prefix=wanted.id_prefix,
        state=wanted.state,
        namespace=wanted.namespace,
        next_token=next_token,
        include="executions" if executions else "",
    )
    return Call(
        method="GET",
        path=JOBS,
        query=query,
        read=lambda response: (_items(response), str(response.get("NextToken") or "")),
    )


def list_executions(
    job_id: str, *, limit: int = 0, order_by: str = "", reverse: bool = False
) -> Call[list[JSON]]:
    """The attempts at a job: first those whose bids were accepted, or in this order."""
    query = _given(limit=str(limit or ""), order_by=order_by, reverse="true" if reverse else "")
    return Call(method="GET", path=_job_path(job_id, "executions"), query=query, read=_items)


def list_events(job_id: str, *, after: int = 0, wait: float = 0.0) -> Call[tuple[list[JSON], bool]]:
    """The events of a job that follow number `after`, and whether the job has ended with them. If there is
    none yet, the response comes with the first one, or after `wait` seconds."""
    return Call(
        method="GET",
        path=_job_path(job_id, "events"),
        query=_given(after=str(after) if after else "", wait=f"{wait:.3f}" if wait else ""),
        wait=wait,
        read=lambda response: (_items(response), not response["NextToken"]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events of all jobs are wanted. Whatever is empty admits all."""

    jobs: Sequence[str] = ()
    """Ids, prefixes of ids, or names."""
    labels: Sequence[str] = ()
    """Selectors for the labels of their jobs, as of Kubernetes."""
    kinds: Sequence[str] = ()


def list_all_events(
    wanted: EventFilter, *, after: int | None = None, since: float | None = None, wait: float = 0.0
) -> Call[tuple[list[JSON], int]]:
    """The events of all jobs behind the place `after`, or from the time `since` on, or else from now on; and
    the place behind which to go on. If there is none yet, the response comes with the first one, or after
    `wait` seconds."""
    query = [("job", job) for job in wanted.jobs]
    query += [("labels", selector) for selector in wanted.labels]
    query += [("kind", kind) for kind in wanted.kinds]
    query += _given(
        after="" if after is None else str(after),
        since="" if since is None else f"{since:.6f}",
        wait=f"{wait:.3f}" if wait else "",
    )
    return Call(
        method="GET",
        path=EVENTS,
        query=query,
        wait=wait,
        tries=_READ_ATTEMPTS,
        read=lambda response: (_items(response), int(response["NextToken"])),
    )


def follow_events(job_id: str, *, after: int = 0) -> Call[JSON]:
    """The events of a job as they come: a stream of server-sent events, each read by itself. The status is
    204 when the job has ended and no event follows number `after`."""
    return Call(
        method="GET",
        path=_job_path(job_id, "events"),
        accept="text/event-stream",
        last_event_id=str(after) if after else "",
        read=_all,
    )


def read_logs(job_id: str, *, follow: bool, tail: int | None, execution: str) -> Call[LogPiece]:
    """What a job writes: a stream of lines, each read by itself. Empty lines say that nothing came."""
    return Call(
        method="GET",
        path=_job_path(job_id, "logs"),
        query=_given(
            follow="true" if follow else "",
            tail="" if tail is None else str(tail),
            execution_id=execution,
        ),
        accept="application/x-ndjson",
        read=_read_piece,
    )


def list_results(job_id: str) -> Call[list[JSON]]:
    """Where the published results of a job are."""
    return Call(method="GET", path=_job_path(job_id, "results"), read=_items)


def rerun_job(job_id: str) -> Call[str]:
    """Submit a job once more; the result is the id of the new job."""
    return Call(
        method="PUT",
        path=_job_path(job_id, "rerun"),
        body=b"{}",
        read=lambda response: text(response, "JobID"),
    )


def cancel_job(job_id: str, *, reason: str) -> Call[None]:
    return Call(method="DELETE", path=_job_path(job_id), query=_given(reason=reason), read=_ignore)


# --- nodes --------------------------------------------------------------------------------------


def list_nodes(
    *,
    labels: Sequence[str] = (),
    status: str = "",
    order_by: str = "",
    reverse: bool = False,
    limit: int = 0,
) -> Call[list[JSON]]:
    """The nodes that this one knows, itself included: each with its `Info` and its `Connection`."""
    query: list[tuple[str, str]] = [("labels", selector) for selector in labels]
    query += [("filter-status", status)] if status else []
    query += _given(order_by=order_by, reverse="true" if reverse else "", limit=str(limit or ""))
    return Call(method="GET", path=NODES, query=query, read=lambda response: _items(response, "Nodes"))


def describe_node(node_id: str) -> Call[JSON]:
    """The node with this id, or with this beginning or end of an id."""
    path = f"{NODES}/{quote(node_id, safe='')}"
    return Call(method="GET", path=path, read=lambda response: _object(response, "Node"))


def get_node() -> Call[JSON]:
    return Call(method="GET", path=f"{AGENT}/node", read=_all)


def get_agent(what: str) -> Call[JSON]:
    """`alive`, `version` or `config` of the node."""
    return Call(method="GET", path=f"{AGENT}/{what}", read=_all)


# --- content ------------------------------------------------------------------------------------


def list_content() -> Call[JSON]:
    """The pins of the node (`Items`), and the bytes of its quota (`Quota`) that are used (`Used`)."""
    return Call(method="GET", path=CONTENT, read=lambda response: {**response, "Items": _items(response)})


def pin_content(cid: str, *, keep: str = "") -> Call[str]:
    """Pin a CID, for a time such as `7d` or until it is unpinned; the result is the CID."""
    return Call(
        method="PUT",
        path=f"{CONTENT}/pins/{quote(cid, safe='')}",
        query=_given(keep=keep),
        wait=FETCH_TIMEOUT,
        read=lambda response: text(response, "CID"),
    )


@dataclass(frozen=True, slots=True)
class Fetched:
    """How much was fetched so far, in bytes, and of how much, if that is known."""

    done: int
    total: int | None


def follow_pin(cid: str, *, keep: str = "") -> Call[Fetched | str]:
    """The same as lines, each read by itself: how much is fetched, now and then, and at last the CID."""
    call = pin_content(cid, keep=keep)
    return replace(
        cast("Call[Any]", call),
        query=(*call.query, ("progress", "true")),
        accept="application/x-ndjson",
        read=_read_pin_line,
    )


def unpin_content(cid: str, *, owner: str) -> Call[None]:
    path = f"{CONTENT}/pins/{quote(cid, safe='')}"
    return Call(method="DELETE", path=path, query=_given(owner=owner), read=_ignore)


def collect_garbage() -> Call[JSON]:
    """Remove what is neither pinned nor in use; the result says how much (`Blocks`, `Bytes`)."""
    return Call(method="POST", path=f"{CONTENT}/gc", wait=FETCH_TIMEOUT, read=_all)


# --- parts of responses -------------------------------------------------------------------------


def text(response: JSON, key: str) -> str:
    """Text that is not empty. Raises KeyError, TypeError."""
    value = response[key]
    if not isinstance(value, str) or not value:
        raise TypeError(f"{key} is not text")
    return value


def _read_pin_line(line: JSON) -> Fetched | str:
    """Raises the error of the node."""
    if "Error" in line:
        raise error_from_json(line, status=int(line.get("Status", 500)))
    if "CID" in line:
        return text(line, "CID")
    total = line.get("Total")
    return Fetched(int(line["Fetched"]), None if total is None else int(total))


def _read_piece(line: JSON) -> LogPiece:
    """Raises the error that the node met after it had begun to respond."""
    if "Error" in line:
        raise error_from_json(line, status=int(line.get("Status", 500)))
    return piece_from_json(line)


def _object(response: JSON, key: str) -> JSON:
    value = response[key]
    if not isinstance(value, dict):
        raise TypeError(f"{key} is not an object")
    return value


def _items(response: JSON, key: str = "Items") -> list[JSON]:
    found = response[key]
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise TypeError(f"{key} is not a list of objects")
    return found


def _all(response: JSON) -> JSON:
    return response


def _ignore(response: JSON) -> None:
    return None


def _given(**values: str) -> Sequence[tuple[str, str]]:
    return tuple((name, value) for name, value in values.items() if value)


def _job_path(job_id: str, *parts: str) -> str:
    return "/".join((JOBS, quote(job_id, safe=""), *parts))


def _decoded(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _malformed(url: str, problem: str) -> ApiError:
    return ApiError(f"unexpected response from the node at {url}: {problem}")
