"""Large jobs on which this node may bid, while it waits for their specs.

Pure, as a part of the compute machine. Only outlines are kept. A requester that announces a job and does not
deliver its spec is asked a few times, and then gets no bids for a while.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from bacalhau_p2p.bprotocol.messages import JobOutlined, SpecWanted
from bacalhau_p2p.components.undo import Undoable, UndoableDict
from bacalhau_p2p.compute import events as ev
from bacalhau_p2p.compute.considered_job import Key
from bacalhau_p2p.compute.ledger import Ledger
from bacalhau_p2p.model.base import JobID, PeerID, UnixSeconds

MAX_REQUESTS = 1000
"""Specs that a node waits for."""
MAX_REQUESTS_TO_ONE = 100
"""Specs that it waits for from one requester."""
ASK_AGAIN_AFTER = (1.0, 2.0, 4.0)
"""Seconds after each request for a spec until the next; after the last the job is given up."""
NOT_DELIVERED = "did not receive the job's spec"


@dataclass(slots=True)
class _Request(Undoable):
    author: PeerID
    message: JobOutlined
    """The latest announcement."""
    due: UnixSeconds
    asked: int = 0


class SpecRequests:
    """What is asked for, and when it is asked for again."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._requests: dict[Key, _Request] = UndoableDict()

    def __contains__(self, key: Key) -> bool:
        return key in self._requests

    def message(self, author: PeerID, job_id: JobID) -> JobOutlined | None:
        """The outline of a job whose spec is awaited from this requester."""
        request = self._requests.get((author, job_id))
        return request.message if request is not None else None

    def ask(self, author: PeerID, message: JobOutlined, now: UnixSeconds) -> None:
        """Ask for the spec of this job."""
        key = (author, message.job_id)
        if (request := self._requests.get(key)) is not None:
            if request.message.outline == message.outline:
                request.message = message  # the latest round is the one to answer
            else:
                self._ledger.ignore(message, "with another outline than before")
            return
        waiting = Counter(requester for requester, _ in self._requests)
        if waiting.total() >= MAX_REQUESTS or waiting[author] >= MAX_REQUESTS_TO_ONE:
            self._ledger.ignore(message, "while too many specs are awaited")
            return
        request = self._requests[key] = _Request(author, message, now)
        self._ledger.actions.append(ev.LearnAddresses(author, message.addresses))
        self._ask(request, now)

    def drop(self, key: Key) -> None:
        """Ask for this spec no more."""
        self._requests.pop(key, None)

    def drop_all_of(self, requester: PeerID) -> None:
        """Ask this requester for nothing any more."""
        for key in [key for key in self._requests if key[0] == requester]:
            self.drop(key)

    def clear(self) -> None:
        """Ask for nothing any more."""
        for key in list(self._requests):
            self.drop(key)

    def next_deadline(self) -> UnixSeconds | None:
        """When to call `check`."""
        return min(request.due for request in self._requests.values()) if self._requests else None

    def check(self, now: UnixSeconds) -> None:
        """Ask again, and give up what was asked for often enough."""
        for request in [each for each in self._requests.values() if each.due <= now]:
            if request.asked < len(ASK_AGAIN_AFTER):
                self._ask(request, now)
            else:
                self.give_up(request.author, request.message.job_id, NOT_DELIVERED, now)

    def give_up(self, author: PeerID, job_id: JobID, reason: str, now: UnixSeconds) -> None:
        """The requester has not delivered the spec: decline, and bid on none of its jobs for a while."""
        request = self._requests.pop((author, job_id), None)
        if request is None:
            return
        self._ledger.unused_bids.left_unused(author, now)
        self._ledger.actions.append(ev.ReportUndelivered(author, job_id, reason))
        self._ledger.decline(author, request.message, reason, busy=True, now=now)

    def _ask(self, request: _Request, now: UnixSeconds) -> None:
        request.due = now + ASK_AGAIN_AFTER[request.asked]
        request.asked += 1
        message = request.message
        wanted = SpecWanted(job_id=message.job_id, spec_cid=message.outline.spec_cid)
        self._ledger.actions.append(ev.Send(request.author, wanted, now))
