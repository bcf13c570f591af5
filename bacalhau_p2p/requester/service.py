"""Drives the requester's machine: what arrives in one tick is handled, kept, and only then acted on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf

import trio
from trio import TaskStatus

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.errors import Fault, InvalidJob, VerifierError
from bacalhau_p2p.logs import get_logger
from bacalhau_p2p.messenger import Arrival, Messenger
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID, UnixSeconds
from bacalhau_p2p.model.execution import Execution, Job, PublishedResult
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.node import NodeInfo
from bacalhau_p2p.model.state import ExecutionState
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.requester.machine import RequesterMachine
from bacalhau_p2p.requester.store import JobPage, RequesterStore
from bacalhau_p2p.verifiers.interface import Verifier

log = get_logger(__name__)

MAX_SPEC = 256 * 1024
"""Bytes of a job on the wire: announcements are broadcast to everybody. Data belongs into inputs."""

COMMITS_TOGETHER = 0.005
"""Seconds that a change which nobody is told of waits for others to be kept with it."""

_HEARD = (
    say.Bid,
    say.BidDeclined,
    say.ResultProposed,
    say.ResultPublished,
    say.ExecutionFailed,
    say.Heartbeat,
)


@dataclass(frozen=True, slots=True)
class _Item:
    event: ev.Event
    arrival: Arrival | None = None
    kept: trio.Event | None = None
    """Set when what the event changed is durable."""
    token: str | None = None


@dataclass(slots=True)
class _Unkept:
    """What was handled and is not yet in the store."""

    items: list[_Item] = field(default_factory=list)
    jobs: dict[JobID, Job] = field(default_factory=dict)
    executions: dict[ExecutionID, Execution] = field(default_factory=dict)
    tokens: dict[JobID, str] = field(default_factory=dict)
    due: UnixSeconds | None = None

    @property
    def empty(self) -> bool:
        return not self.items and not self.jobs and not self.executions

    def take(self, items: list[_Item], actions: list[ev.Action]) -> bool:
        """Add what one tick handled. Whether somebody is about to be told of it: then it must be kept."""
        told = False
        self.items += items
        for item in items:
            told = told or item.kept is not None
            if item.token is not None and isinstance(item.event, ev.Submitted):
                self.tokens[item.event.job_id] = item.token
        for action in actions:
            match action:
                case ev.Store(Job() as job):
                    self.jobs[job.id] = job
                    told = told or job.state.terminal
                case ev.Store(Execution() as execution):
                    self.executions[execution.id] = execution
                case ev.Send() | ev.Broadcast():
                    told = True
        return told


class RequesterService:
    """One node's requester. Use its methods while `run` runs."""

    def __init__(
        self,
        machine: RequesterMachine,
        store: RequesterStore,
        messenger: Messenger,
        *,
        verifiers: Mapping[str, Verifier],
        check: Callable[[JobSpec], list[Fault]],
        clock: Callable[[], UnixSeconds],
        new_job_id: Callable[[], JobID],
    ) -> None:
        self._machine = machine
        self._store = store
        self._messenger = messenger
        self._verifiers = verifiers
        self._check = check
        self._clock = clock
        self._new_job_id = new_job_id
        self._inbox: list[_Item] = []
        self._unkept = _Unkept()
        self._wake = trio.Event()
        self._changed: dict[JobID, trio.Event] = {}
        self._tokens: dict[str, JobID] = {}
        messenger.listen(_HEARD, self._hear)
        messenger.watch_connections(self._connection)

    # --- for the node and its API -------------------------------------------------------------

    async def submit(self, spec: JobSpec, *, token: str | None = None) -> JobID:
        """Accept a job; it survives any crash from the moment this returns.

        The same `token` again returns the job that it was first given with. Raises InvalidJob.
        Cancelled: the job may have been accepted.
        """
        if faults := self._faults(spec):
            raise InvalidJob(faults)
        if token is not None:
            known = self._tokens.get(token) or self._store.by_token(token)
            if known is not None:
                return known
        job_id = self._new_job_id()
        if token is not None:
            self._tokens[token] = job_id
        try:
            await self._handle(ev.Submitted(job_id, spec), token=token)
        finally:
            if token is not None:
                self._tokens.pop(token, None)
        return job_id

    async def cancel(self, job_id: JobID, reason: str) -> None:
        """Stop a job; one that has ended stays as it is. Raises UnknownJob."""
        self._store.job(job_id)
        await self._handle(ev.CancelRequested(job_id, reason))

    async def wait(self, job_id: JobID, timeout: float) -> Job:
        """The job as soon as it has ended, or as it is after `timeout` seconds. Raises UnknownJob."""
        with trio.move_on_after(timeout):
            while not (job := self._store.job(job_id)).state.terminal:
                await self._changed.setdefault(job_id, trio.Event()).wait()
            return job
        return self._store.job(job_id)

    def job(self, job_id: JobID) -> Job:
        """Raises UnknownJob."""
        return self._store.job(job_id)

    def resolve(self, prefix: str) -> JobID:
        """The id of the only job whose id begins so. Raises UnknownJob, AmbiguousID."""
        return self._store.resolve(prefix)

    def jobs(self, *, limit: int, offset: int = 0, newest_first: bool = True, prefix: str = "") -> JobPage:
        return self._store.jobs(limit=limit, offset=offset, newest_first=newest_first, prefix=prefix)

    def executions(self, job_id: JobID) -> list[Execution]:
        """Every attempt at the job, oldest first. Raises UnknownJob."""
        self._store.job(job_id)
        return self._store.executions(job_id)

    def results(self, job_id: JobID) -> list[PublishedResult]:
        """Where the accepted results can be had, one an execution. Raises UnknownJob."""
        return [
            execution.published
            for execution in self.executions(job_id)
            if execution.state == ExecutionState.COMPLETED and execution.published is not None
        ]

    def node_seen(self, info: NodeInfo) -> None:
        self._put(_Item(ev.NodeSeen(info)))

    def node_forgotten(self, peer: PeerID) -> None:
        self._put(_Item(ev.NodeForgotten(peer)))

    def _faults(self, spec: JobSpec) -> list[Fault]:
        faults = self._check(spec)
        verifier = self._verifiers.get(spec.verifier.type)
        if verifier is not None:
            faults += verifier.faults(spec)
        size = len(spec.model_dump_json())
        if size > MAX_SPEC:
            faults.append(Fault("", f"the job is {size} bytes, more than {MAX_SPEC}: put data into inputs"))
        return faults

    # --- the loop -----------------------------------------------------------------------------

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Resume what the store holds, then drive the machine until cancelled."""
        for job in self._store.unfinished():
            self._put(_Item(ev.Resumed(job, tuple(self._store.executions(job.id)))))
        try:
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    with trio.move_on_after(self._patience()):
                        await self._wake.wait()
                    self._tick(nursery)
        finally:
            self._keep(self._clock())

    def _patience(self) -> float:
        clocks = [self._machine.next_deadline(), self._unkept.due]
        return max(0.0, min((clock for clock in clocks if clock is not None), default=inf) - self._clock())

    def _tick(self, nursery: trio.Nursery) -> None:
        """Handle all that has arrived; keep what it changed before anybody is told of it.

        A change that nobody is told of may wait a moment for others, for one commit costs as much as
        many; its message is acknowledged when it is kept.
        """
        items, self._inbox = self._inbox, []
        self._wake = trio.Event()
        now = self._clock()
        actions: list[ev.Action] = []
        for item in items:
            actions += self._machine.handle(item.event, now)
        deadline = self._machine.next_deadline()
        if deadline is not None and deadline <= now:
            actions += self._machine.handle(ev.TimePassed(), now)
        told = self._unkept.take(items, actions)
        if told or (self._unkept.due is not None and self._unkept.due <= now):
            self._keep(now)
        elif self._unkept.due is None and not self._unkept.empty:
            self._unkept.due = now + COMMITS_TOGETHER
        for action in actions:
            self._perform(action, nursery)

    def _keep(self, now: UnixSeconds) -> None:
        unkept, self._unkept = self._unkept, _Unkept()
        self._store.commit(unkept.jobs.values(), unkept.executions.values(), unkept.tokens)
        for item in unkept.items:
            if item.arrival is not None:
                self._messenger.settle(item.arrival)
            if item.kept is not None:
                item.kept.set()
        for job in unkept.jobs.values():
            log.info("job", job=job.id, state=str(job.state), message=job.message)
            if (changed := self._changed.pop(job.id, None)) is not None:
                changed.set()

    def _perform(self, action: ev.Action, nursery: trio.Nursery) -> None:
        match action:
            case ev.Send(to, message, give_up_at):
                self._messenger.send(to, message, give_up_at=give_up_at)
            case ev.Broadcast(message):
                self._messenger.broadcast(message)
            case ev.Verify():
                nursery.start_soon(self._verify, action)

    async def _verify(self, action: ev.Verify) -> None:
        verifier = self._verifiers.get(action.spec.verifier.type)
        try:
            if verifier is None:
                raise VerifierError(f"this requester has no {action.spec.verifier.type} verifier")
            verdict = await verifier.verify(action.spec, action.proposals)
        except VerifierError as error:
            self._put(_Item(ev.VerifierFailed(action.job_id, str(error))))
        else:
            self._put(_Item(ev.Verified(action.job_id, verdict)))

    # --- the inbox ----------------------------------------------------------------------------

    def _put(self, item: _Item) -> None:
        self._inbox.append(item)
        self._wake.set()

    async def _handle(self, event: ev.Event, *, token: str | None = None) -> None:
        kept = trio.Event()
        self._put(_Item(event, kept=kept, token=token))
        await kept.wait()

    def _hear(self, arrival: Arrival) -> None:
        self._put(_Item(ev.MessageReceived(arrival.author, arrival.message), arrival))

    def _connection(self, peer: PeerID, stands: bool) -> None:
        self._put(_Item(ev.ConnectionStands(peer) if stands else ev.ConnectionBroke(peer)))
