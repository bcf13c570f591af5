"""Drives the requester's machine, and offers its jobs to the node and its API."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from functools import partial
from heapq import nlargest
from typing import Any, TypeVar

import trio
from trio import TaskStatus

from bacalhau_p2p.bprotocol.messages import TO_REQUESTER
from bacalhau_p2p.bprotocol.messenger import Messenger
from bacalhau_p2p.components.adapter_calls import VERIFY_TIMEOUT, call_adapter, expected
from bacalhau_p2p.components.commit_plan import Commit, QueuedEvent
from bacalhau_p2p.components.driver import Driver, Outcome
from bacalhau_p2p.errors import DiskFull, ExecutionError, InvalidJob
from bacalhau_p2p.model.base import JobID, PeerID, UnixSeconds
from bacalhau_p2p.model.execution import Execution, Job, PublishedResult
from bacalhau_p2p.model.history import FeedPage, HistoryPage
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.node import NodeInfo
from bacalhau_p2p.model.state import ExecutionState
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.requester.feed import FeedQuery, FeedReader
from bacalhau_p2p.requester.job_checks import JobChecks
from bacalhau_p2p.requester.machine import RequesterMachine
from bacalhau_p2p.requester.rows import ExecutionBrief
from bacalhau_p2p.requester.store import (
    EXECUTIONS_AT_ONCE,
    JobPage,
    JobQuery,
    RecordPage,
    RequesterStore,
    SubmissionToken,
)
from bacalhau_p2p.runtime.logs import about, get_logger
from bacalhau_p2p.verifiers.interface import Verdict, Verifier

log = get_logger(__name__)

_T = TypeVar("_T")

MAX_EVENTS_AT_ONCE = 1_000
"""Events of a history that one call reads."""


class RequesterService(Driver):
    """One node's requester. Use its methods while `run` runs."""

    def __init__(
        self,
        machine: RequesterMachine,
        store: RequesterStore,
        messenger: Messenger,
        *,
        verifiers: Mapping[str, Verifier],
        checks: JobChecks,
        clock: Callable[[], UnixSeconds],
        new_job_id: Callable[[], JobID],
        resource_shortage: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`resource_shortage` says why this node takes no jobs now, or None."""
        super().__init__(machine, store, messenger, clock=clock)
        self._machine: RequesterMachine = machine
        self._store: RequesterStore = store
        self._verifiers = verifiers
        self._checks = checks
        self._new_job_id = new_job_id
        self._resource_shortage = resource_shortage
        self._changed: dict[JobID, trio.Event] = {}
        self._told: dict[JobID, trio.Event] = {}
        self._feed = FeedReader(store.feed)
        self._tokens: dict[str, tuple[JobID, Outcome]] = {}
        """Submissions that are not committed yet, by idempotency token."""
        messenger.listen(TO_REQUESTER, self._receive)
        messenger.watch_connections(self._connection_changed)

    @property
    def ignored(self) -> Counter[str]:
        """Events that changed nothing, by kind and state."""
        return self._machine.ignored

    def unfinished(self) -> Counter[str]:
        """The number of jobs that have not ended, by state."""
        states = (entry.job.state for entry in self._machine.jobs.values())
        return Counter(str(state) for state in states if not state.terminal)

    def unfinished_jobs(self, limit: int) -> list[Job]:
        """The latest jobs that have not ended, newest first."""
        jobs = (entry.job for entry in self._machine.jobs.values())
        return nlargest(limit, (job for job in jobs if not job.state.terminal), key=lambda job: job.created)

    @property
    def resource_shortage(self) -> str | None:
        """Why this node takes no jobs now."""
        return self._resource_shortage()

    def penalties(self) -> dict[PeerID, float]:
        """The nodes that get only jobs which no other takes, because they wasted this one's time, with the
        seconds that are left."""
        return self._machine.penalties(self._clock())

    def partners(self) -> set[PeerID]:
        """The nodes that have a part in a job that has not ended."""
        ongoing = (entry for entry in self._machine.jobs.values() if not entry.job.state.terminal)
        return {node for entry in ongoing for node in entry.placement.nodes.parts}

    # --- for the node and its API -------------------------------------------------------------

    async def submit(self, spec: JobSpec, *, token: str | None = None, left_out: Sequence[str] = ()) -> JobID:
        """Accept a job. When this returns, no crash loses it.

        `left_out` is told in the history: what is missing in inputs that were added for the job.
        A `token` that was used before returns the job that was submitted with it. Cancelled: the job may
        have been accepted. Raises InvalidJob, DiskFull, EventDropped.
        """
        if faults := await self._checks.faults(spec):
            raise InvalidJob(faults)
        if token is not None and (known := self._store.by_token(token)) is not None:
            return known
        if (reason := self._resource_shortage()) is not None:
            raise DiskFull(f"this node takes no jobs now: it {reason}")
        if token is None:
            job_id = self._new_job_id()
            await self._enqueue_and_confirm(ev.Submitted(job_id, spec, left_out))
            return job_id
        if token not in self._tokens:
            # Even if this call is cancelled, a second one with the token must find the job.
            job_id, outcome = self._tokens[token] = self._new_job_id(), Outcome()

            def refuse(reason: str) -> None:
                self._tokens.pop(token, None)
                outcome.refuse(reason)

            note = SubmissionToken(job_id, token)
            submitted = ev.Submitted(job_id, spec, left_out)
            self._enqueue_all(QueuedEvent(submitted, confirm=outcome.confirm, refuse=refuse, note=note))
        job_id, outcome = self._tokens[token]
        await outcome.wait()
        return job_id

    async def cancel(self, job_id: JobID, reason: str) -> None:
        """Stop a job, unless it has ended. Raises UnknownJob."""
        self._store.job(job_id)
        await self._enqueue_and_confirm(ev.CancelRequested(job_id, reason))

    async def wait(self, job_id: JobID, timeout: float) -> Job:
        """The job when it has ended, or after `timeout` seconds. Raises UnknownJob."""
        with trio.move_on_after(timeout):
            while not self._store.has_ended(job_id):
                await self._changed.setdefault(job_id, trio.Event()).wait()
        return self._store.job(job_id)

    def job(self, job_id: JobID) -> Job:
        """Raises UnknownJob."""
        return self._store.job(job_id)

    def resolve(self, wanted: str) -> JobID:
        """The id of the only job with this id, name or prefix of an id. Raises UnknownJob, AmbiguousID."""
        return self._store.resolve(wanted)

    def latest_named(self, name: str) -> Job | None:
        """The latest job with this name."""
        named = self._store.named(name, most=1)
        return self._store.job(named[0]) if named else None

    def jobs(self, query: JobQuery = JobQuery(), *, limit: int, after: str = "") -> JobPage:  # noqa: B008
        """A page of jobs; see `RequesterStore.jobs`. Raises ValueError."""
        return self._store.jobs(query, limit=limit, after=after)

    def job_records(self, query: JobQuery, *, limit: int, after: str = "") -> RecordPage:
        """The same as JSON, faster; see `RequesterStore.job_records`. Raises ValueError."""
        return self._store.job_records(query, limit=limit, after=after)

    async def history(
        self, job_id: JobID, *, after: int = 0, limit: int = MAX_EVENTS_AT_ONCE, timeout: float = 0.0
    ) -> HistoryPage:
        """The events of a job that follow number `after`.

        If there is none, and the job has not ended, it waits for one up to `timeout` seconds. Raises
        UnknownJob.
        """
        self._store.job(job_id)
        page = self._history(job_id, after, limit)
        with trio.move_on_after(timeout):
            while timeout > 0 and not page.events and not page.ended:
                await self._told.setdefault(job_id, trio.Event()).wait()
                page = self._history(job_id, after, limit)
        return page

    def _history(self, job_id: JobID, after: int, limit: int) -> HistoryPage:
        ended = self._store.has_ended(job_id)
        events = self._store.history(job_id, after=after, limit=limit + 1)
        return HistoryPage(events[:limit], ended and len(events) <= limit)

    async def feed(self, query: FeedQuery, *, after: int, limit: int, timeout: float = 0.0) -> FeedPage:
        """Events of all jobs; see `FeedReader.page`."""
        return await self._feed.page(query, after=after, limit=limit, timeout=timeout)

    def feed_place(self, since: UnixSeconds | None) -> int:
        """The place behind which events are that happen from this time on; None: from now on."""
        return self._store.feed.end() if since is None else self._store.feed.place_at(since)

    async def executions(self, job_id: JobID) -> list[Execution]:
        """Every attempt at the job, oldest first. Lets others work meanwhile. Raises UnknownJob."""
        self._store.job(job_id)
        return await _gathered(self._store.execution_steps(job_id))

    async def execution_records(self, job_id: JobID) -> list[dict[str, Any]]:
        """The same as JSON, three times as fast; empty for an unknown job."""
        try:
            return await _gathered(self._store.execution_record_steps(job_id))
        except ValueError:  # `execution_steps` sets aside a record that cannot be read
            found = await _gathered(self._store.execution_steps(job_id))
            return [each.model_dump(mode="json", by_alias=True) for each in found]

    def briefs(self, job_id: JobID) -> list[ExecutionBrief]:
        """What a list of jobs shows of every attempt at the job, oldest first."""
        return self._store.briefs(job_id)

    async def results(self, job_id: JobID) -> list[PublishedResult]:
        """Where the accepted results are, one for each completed execution. Lets others work meanwhile.
        Raises UnknownJob."""
        return [
            execution.published
            for execution in await self.executions(job_id)
            if execution.state == ExecutionState.COMPLETED and execution.published is not None
        ]

    def node_seen(self, info: NodeInfo) -> None:
        self._enqueue(ev.NodeInfoReceived(info))

    def node_went_stale(self, peer: PeerID) -> None:
        self._enqueue(ev.NodeWentStale(peer))

    # --- the loop -----------------------------------------------------------------------------

    def resume(self) -> None:
        """Hand what the store holds to the machine. Call it before the first message arrives: a message about
        a job must find it."""
        self._resume_messages()
        for job in self._store.unfinished():
            executions, told = tuple(self._store.executions(job.id)), self._store.told(job.id)
            self._enqueue(ev.Resumed(job, executions, told))

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Drive the machine until cancelled."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            await self._drive(nursery)

    def _committed(self, commit: Commit) -> None:
        for note in commit.notes:
            if isinstance(note, SubmissionToken):
                self._tokens.pop(note.token, None)
        logs = log.isEnabledFor(logging.INFO)
        for record in commit.records:
            if isinstance(record, Job):
                if logs:
                    log.info("job", job=record.id, state=str(record.state), message=record.message)
                if (changed := self._changed.pop(record.id, None)) is not None:
                    changed.set()
        if commit.history:
            self._feed.wake()
        if self._told:
            for job_id in {event.job_id for event in commit.history}:
                if (told := self._told.pop(job_id, None)) is not None:
                    told.set()

    def _perform(self, action: ev.Action, nursery: trio.Nursery) -> None:
        if isinstance(action, ev.NodePenalised):
            log.warning("node_is_chosen_last", node=action.node, seconds=action.lasts)
            return
        assert isinstance(action, ev.Verify)
        with about(job=action.job_id):
            nursery.start_soon(self._verify, action)

    async def _verify(self, action: ev.Verify) -> None:
        kind = action.spec.verifier.type
        verifier = self._verifiers.get(kind)
        if verifier is None:
            reason = f"this requester has no {kind} verifier"
            self._enqueue(ev.VerifierFailed(action.job_id, reason, action.group))
            return
        what, verify = f"{kind} verifier", partial(verifier.verify, action.spec, action.proposals)
        try:
            verdict = await call_adapter(what, verify, timeout=VERIFY_TIMEOUT, job=action.job_id)
            expected(verdict, Verdict, what)
            expected(verdict.accepted, Set, what)
            expected(verdict.rejected, Set, what)
            expected(verdict.reason, str, what)
        except ExecutionError as error:
            self._enqueue(ev.VerifierFailed(action.job_id, str(error), action.group))
        else:
            self._enqueue(ev.Verified(action.job_id, verdict, action.group))

    def _connection_changed(self, peer: PeerID, stands: bool) -> None:
        self._enqueue(ev.NodeConnected(peer) if stands else ev.NodeDisconnected(peer))


async def _gathered(steps: Iterator[list[_T]]) -> list[_T]:
    """What all steps find. Lets others work between two of them."""
    gathered: list[_T] = []
    for found in steps:
        gathered += found
        if len(found) == EXECUTIONS_AT_ONCE:
            await trio.lowlevel.checkpoint()
    return gathered
