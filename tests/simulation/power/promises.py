"""What a node promises to others, and what must be on its disk from then on."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.bprotocol.codec import Envelope, MessageID, decode_broadcast, decode_frame
from bacalhau_p2p.bprotocol.messages import Carrier, Message
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import Execution
from bacalhau_p2p.model.state import ComputeState, JobState
from bacalhau_p2p.requester.rows import Rows, create_rows
from tests.simulation.power.trace import State, rows_of

_HARMLESS = (say.Bid, say.BidRejected)
"""Messages that need no commit before they are sent: nothing depends on them after a crash."""
_MAY_BE_STRAY = (say.CancelExecution, say.ExecutionFailed)
"""Messages that also answer strangers, about executions of which a node keeps nothing."""
_EXECUTIONS = ("execution", "ended")
"""The tables of executions, of both components."""


class Promise(Protocol):
    def kept_in(self, state: State) -> bool:
        """Whether a store in this state keeps the promise."""
        ...


@dataclass(frozen=True, slots=True)
class Answered:
    """The user was given the job's id."""

    job_id: JobID
    token: str

    def kept_in(self, state: State) -> bool:
        return any((row[1], row[5]) == (self.job_id, self.token) for row in rows_of(state, "job"))


@dataclass(frozen=True, slots=True)
class Stopped:
    """The user was told that the job is cancelled."""

    job_id: JobID

    def kept_in(self, state: State) -> bool:
        return any(row[1:3] == (self.job_id, str(JobState.STOPPED)) for row in rows_of(state, "job"))


@dataclass(frozen=True, slots=True)
class Ended:
    """The user was told how the job ended."""

    job_id: JobID
    ending: JobState

    def kept_in(self, state: State) -> bool:
        return any(row[1:3] == (self.job_id, str(self.ending)) for row in rows_of(state, "job"))


@dataclass(frozen=True, slots=True)
class Announced:
    """The job was announced to everybody."""

    job_id: JobID

    def kept_in(self, state: State) -> bool:
        return any(row[1] == self.job_id for row in rows_of(state, "job"))


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that is repeated until it is acknowledged."""

    message_id: MessageID
    kind: str
    stray: ExecutionID | None = None
    """The execution, if this may be an answer about one that is unknown here, for which nothing is kept."""

    def kept_in(self, state: State) -> bool:
        if any(row[0] == self.message_id for row in rows_of(state, "outbox")):
            return True
        known = any(self.stray in row for table in _EXECUTIONS for row in rows_of(state, table))
        return self.stray is not None and not known


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A message of this peer was processed: the peer need not send it again."""

    author: PeerID
    message_id: MessageID

    def kept_in(self, state: State) -> bool:
        return any(row[1:3] == (self.author, self.message_id) for row in rows_of(state, "inbox"))


def leaves_trace(message: Message | None) -> bool:
    """Whether a message of this kind is marked as processed. Others may have changed nothing durable."""
    return type(message) in _EFFECTS


def takes_effect(message: Message, state: State) -> bool:
    """Whether a store in this state, in which the message is marked as processed, shows its effect."""
    effect = _EFFECTS.get(type(message))
    return effect is None or effect(message, state)


def _compute_is_past(*states: ComputeState) -> Callable[[Any, State], bool]:
    early = {str(state) for state in states}

    def shows(message: Any, state: State) -> bool:
        found = [row[1] for row in rows_of(state, "execution") if row[0] == message.execution_id]
        ended = any(row[1] == message.execution_id for row in rows_of(state, "ended"))
        return ended or (bool(found) and found[0] not in early)

    return shows


@cache
def _rows() -> Rows:
    """Reads the rows of any requester's database: all are made alike."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    create_rows(db)
    return Rows(db)


def _requester_has(of: Callable[[Execution], object]) -> Callable[[Any, State], bool]:
    def shows(message: Any, state: State) -> bool:
        rows = [row[2:] for row in rows_of(state, "execution") if row[2] == message.execution_id]
        found = [_rows().execution(message.job_id, *row) for row in rows]
        return any(of(execution) is not None or execution.state.terminal for execution in found)

    return shows


_RUNNING = (ComputeState.BID, ComputeState.PREPARING, ComputeState.RUNNING)
_EFFECTS: dict[type[Message], Callable[[Any, State], bool]] = {
    say.BidAccepted: _compute_is_past(ComputeState.BID),
    say.ResultAccepted: _compute_is_past(*_RUNNING, ComputeState.PROPOSED),
    say.ResultProposed: _requester_has(lambda execution: execution.proposal),
    say.ResultPublished: _requester_has(lambda execution: execution.published),
}


def promises_of_frame(to: PeerID, frame: bytes) -> Iterator[tuple[Promise, Envelope]]:
    """What a direct frame to this peer promises."""
    envelope = decode_frame(frame)
    if envelope is None:
        return
    alone = envelope.message.ids if isinstance(envelope.message, say.Ack) else ()
    for message_id in (*envelope.acks, *alone):
        yield Acknowledged(to, MessageID(message_id)), envelope
    if envelope.message.carrier is Carrier.DIRECT and not isinstance(envelope.message, _HARMLESS):
        message = envelope.message
        stray = message.execution_id if isinstance(message, _MAY_BE_STRAY) else None
        yield Sent(envelope.id, message.kind, stray), envelope


def promises_of_broadcast(payload: bytes) -> Iterator[tuple[Promise, Envelope]]:
    """What a broadcast promises. Mail that is passed on for others promises nothing."""
    for envelope in decode_broadcast(payload):
        assert isinstance(envelope, Envelope), envelope
        if isinstance(envelope.message, say.Announcement | say.JobClosed):
            yield Announced(envelope.message.job_id), envelope
