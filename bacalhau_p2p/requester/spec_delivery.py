"""Gives the specs of large jobs to nodes that may bid on them, within bounds.

Pure, as a part of the requester's machine. `bprotocol/outlines.py` has what is announced instead.
"""

from __future__ import annotations

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.model.base import PeerID, UnixSeconds
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.requester.ledger import Ledger
from bacalhau_p2p.requester.record import JobEntry

MAX_DELIVERIES_TO_NODE = 4
"""How often a node is given the spec of a job in one round: once, and again if it did not arrive."""
MAX_DELIVERIES_TO_OTHERS = 200
"""How often, in one round, all nodes together are given it that were not known when it began."""


def deliver_spec(
    ledger: Ledger, entry: JobEntry | None, author: PeerID, wanted: say.SpecWanted, now: UnixSeconds
) -> None:
    """Send the spec of a job to a node that asks, unless it may not bid or was given it often enough."""
    large = entry.large_spec if entry is not None else None
    if entry is not None and (entry.job.state.terminal or not entry.is_open):
        nothing = say.SpecDelivered(job_id=entry.job.id, spec=b"")
        ledger.actions.append(ev.Send(author, nothing, now))
    elif entry is None or large is None:
        ledger.ignore(wanted, "for a job that was not outlined")
    elif large.outline.spec_cid != wanted.spec_cid:
        ledger.ignore(wanted, "for another spec")
    elif not entry.round.asked.may_bid(entry.job.id, author):
        ledger.ignore(wanted, "of a node that may not bid")
    elif not _may_have_it_again(entry, author):
        ledger.ignore(wanted, "too often")
    else:
        entry.round.given[author] = entry.round.given.get(author, 0) + 1
        spec = say.SpecDelivered(job_id=entry.job.id, spec=large.encoded)
        ledger.actions.append(ev.Send(author, spec, now))


def _may_have_it_again(entry: JobEntry, author: PeerID) -> bool:
    given, known = entry.round.given, entry.round.asked.nodes
    if given.get(author, 0) >= MAX_DELIVERIES_TO_NODE:
        return False
    return (
        author in known
        or sum(times for node, times in given.items() if node not in known) < MAX_DELIVERIES_TO_OTHERS
    )
