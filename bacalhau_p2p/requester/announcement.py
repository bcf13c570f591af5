"""What is announced of a job, with the terms of the present round.

Pure, as a part of the requester's machine.
"""

from __future__ import annotations

from math import ceil
from typing import Any

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.bprotocol.outlines import large_spec
from bacalhau_p2p.requester.record import JobEntry


def announcement_of(entry: JobEntry, *, wanted: int, addresses: tuple[str, ...]) -> say.Announcement:
    """The announcement of a job whose round is to bring so many bids. `addresses` are those of this
    requester."""
    asked = entry.round.asked
    terms: dict[str, Any] = {
        "job_id": entry.job.id,
        "addresses": addresses,
        "bids_wanted": wanted,
        "round": entry.round.number,
        "eligible": asked.eligible,
        "chance": asked.chance,
        "answers_wanted": entry.round.answers_wanted,
        "bids_each": _bids_each(entry, wanted) if entry.divided else 0,
        "deadline": entry.deadline,
    }
    if entry.round.number == 1:
        entry.large_spec = large_spec(entry.job.spec)
    if entry.large_spec is None:
        return say.JobAnnounced(spec=entry.job.spec, **terms)
    return say.JobOutlined(outline=entry.large_spec.outline, **terms)


def _bids_each(entry: JobEntry, wanted: int) -> int:
    """How many bids on a job that is divided each node may place, if all that are asked are to bid alike."""
    asked = len(entry.round.asked.nodes) + entry.round.asked.others
    return min(ceil(wanted / max(asked, 1.0)), say.MAX_BIDS_EACH)
