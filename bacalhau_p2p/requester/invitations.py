"""Invites nodes to bid on a job: chooses who is asked in a round, and announces the job to them.

Pure, as a part of the requester's machine. `docs/bprotocol.md` says who is asked when.
"""

from __future__ import annotations

from collections.abc import Set

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.model.base import PeerID, UnixSeconds
from bacalhau_p2p.model.execution import Execution
from bacalhau_p2p.model.state import ExecutionState
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.requester.announcement import announcement_of
from bacalhau_p2p.requester.audience import (
    MOST_ASKED_DIRECTLY,
    Asked,
    Audience,
    nodes_asked,
    nodes_asked_directly,
)
from bacalhau_p2p.requester.doubts import Doubts
from bacalhau_p2p.requester.groups import GONE
from bacalhau_p2p.requester.holders import Holders
from bacalhau_p2p.requester.ledger import Ledger
from bacalhau_p2p.requester.liveness import Liveness
from bacalhau_p2p.requester.ops_nodes import nodes_to_ask
from bacalhau_p2p.requester.penalties import Penalties
from bacalhau_p2p.requester.record import JobEntry

MAX_ANSWERING_NODES = 150
"""Nodes that may bid up to which those that do not are asked to say so; more would be a flood."""


class Invitations:
    """Of one requester."""

    def __init__(
        self, ledger: Ledger, liveness: Liveness, penalties: Penalties, *, addresses: tuple[str, ...]
    ) -> None:
        self._ledger = ledger
        self._liveness = liveness
        self._penalties = penalties
        self._addresses = addresses
        self._audience = Audience()
        self._holders = Holders()
        self._doubts = Doubts()

    def send(self, entry: JobEntry, wanted: int, now: UnixSeconds) -> None:
        """Ask nodes for so many bids in the present round of a job."""
        current, able = entry.round, self._liveness.eligible(entry)
        near = (able & self._liveness.connected) - entry.failures.keys()
        doubted, penalised = self._doubts.among(near, now), self._penalties.among(able, now)
        avoided = doubted | penalised
        if current.number == 1 and len(near - avoided) >= nodes_asked_directly(wanted):
            able, near = able - avoided, near - avoided
        current.asked = asked = self._choose(entry, able, near, wanted, penalised)
        current.doubted = doubted & asked.nodes
        drawn = asked.chance * len(self._liveness.nodes) + asked.others
        answering = len(asked.nodes) if asked.directly else drawn
        current.answers_wanted = answering <= MAX_ANSWERING_NODES
        announcement = announcement_of(entry, wanted=wanted, addresses=self._addresses)
        self._ledger.announce(entry, announcement, now)
        if asked.directly and not entry.ops and isinstance(announcement, say.JobAnnounced):
            self._ask_holders(entry, announcement, near - asked.nodes, now)

    def _choose(
        self, entry: JobEntry, able: Set[PeerID], near: Set[PeerID], wanted: int, penalised: Set[PeerID]
    ) -> Asked:
        """Who is asked: for an ops job each node that has not taken it, otherwise enough to choose from."""
        if entry.ops:
            return nodes_to_ask(entry)
        job, current, tried = entry.job, entry.round, entry.failures.keys() | penalised
        asked = self._audience.ask(job.id, able, nodes_asked(wanted, current.widened), tried=tried)
        if current.number == 1 and job.spec.verifier.type == "noop":
            # Results that are compared must not all come from nodes that chose to connect to this one.
            preferred = [node for node in self._holders.of(job.spec) if node not in penalised]
            asked = self._audience.ask_directly(job.id, asked, near, wanted, preferred=preferred)
        return asked

    def _ask_holders(
        self, entry: JobEntry, announcement: say.JobAnnounced, others: Set[PeerID], now: UnixSeconds
    ) -> None:
        """Where it is not known who has the inputs of a job, ask those of the connected nodes for a bid, too,
        that have them."""
        if others and self._holders.may_ask(entry.job.spec, now):
            question = announcement.model_copy(update={"only_if_local": True, "answers_wanted": False})
            some = sorted(others)[:MOST_ASKED_DIRECTLY]
            self._ledger.actions += [ev.Send(node, question, now, durable=False) for node in some]

    def unanswered(self, nodes: Set[PeerID], now: UnixSeconds) -> None:
        """These nodes were asked directly and have not answered in time."""
        self._doubts.note(nodes, now)

    def heard(self, node: PeerID) -> None:
        """This node has bid or declined."""
        self._doubts.heard(node)

    def bid(self, entry: JobEntry, author: PeerID, bid: say.Bid) -> None:
        """Learn from a bid how many nodes there are, and where inputs are."""
        self.heard(author)
        if not bid.late:
            self._audience.answered(known=author in self._liveness.nodes)
        if not entry.job.state.terminal:
            self._holders.bid(entry.job.spec, author, bid)

    def reported(self, entry: JobEntry, execution: Execution, now: UnixSeconds) -> None:
        """Learn from what became of an execution where inputs and results are, and whom to choose last."""
        if execution.state is ExecutionState.COMPLETED:
            self._holders.completed(entry.job.spec, execution)
            self._penalties.completed(entry, execution, now)
        elif execution.state in GONE:
            self.gone(entry, execution, now)

    def gone(self, entry: JobEntry, execution: Execution, now: UnixSeconds, *, silent: bool = False) -> None:
        """An execution has failed, was handed back, or was lost because its node was `silent`: the node is
        not asked first for its inputs any more."""
        if not execution.drained:
            self._holders.failed(entry.job.spec, execution.node_id)
        self._penalties.gone(entry, execution, now, silent=silent)
