"""The verifier that accepts a result when enough nodes found it independently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import trio

from bacalhau_p2p.errors import Fault, InvalidJob, VerifierError
from bacalhau_p2p.model.execution import Proposal
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.params import DeterministicParams
from bacalhau_p2p.model.validation import read_params
from bacalhau_p2p.verifiers.interface import Verdict

_Key = tuple[str, ...]
"""What must be equal in two proposals: the result CID, or the CIDs of the chosen entries."""


class DeterministicVerifier:
    """Accepts the largest group of equal proposals if it is large enough and the only one of its size.

    Parameters of the job's `Verifier`, both optional:

    - `Confidence`: how many nodes must agree. 0, the default, means a majority of the nodes that proposed
      a result, and at least two.
    - `Entries`: names of top-level entries of the results folder (`stdout`, `outputs`). Only these
      must be equal, and a proposal without one of them is rejected. By default the whole folder must be.
    """

    @property
    def type(self) -> str:
        return "deterministic"

    def faults(self, spec: JobSpec) -> list[Fault]:
        try:
            params = _params(spec)
        except InvalidJob as error:
            return list(error.faults)
        if params.confidence > spec.group_size:
            what = "Deal.Replicas" if spec.divided else "Count"
            problem = f"is {params.confidence}, but {what} is {spec.group_size}: not enough nodes can agree"
            return [Fault("Verifier.Params.Confidence", problem)]
        return []

    async def verify(self, spec: JobSpec, proposals: Sequence[Proposal]) -> Verdict:
        """Raises VerifierError when the verifier's parameters have faults."""
        await trio.lowlevel.checkpoint()
        try:
            params = _params(spec)
        except InvalidJob as error:
            raise VerifierError(str(error)) from None
        return judge(proposals, confidence=params.confidence, entries=params.entries)


def judge(proposals: Sequence[Proposal], *, confidence: int, entries: Sequence[str] = ()) -> Verdict:
    """The verdict on these proposals. Pure.

    Nodes are counted, not proposals: two equal proposals of one node count once.
    """
    everything = frozenset(proposal.execution_id for proposal in proposals)
    groups: dict[_Key, list[Proposal]] = {}
    for proposal in proposals:
        key = _key(proposal, entries)
        if key is not None:
            groups.setdefault(key, []).append(proposal)
    nodes = len({proposal.node_id for proposal in proposals})
    sizes = {key: len({proposal.node_id for proposal in group}) for key, group in groups.items()}
    largest = max(sizes.values(), default=0)
    needed = confidence or max(2, nodes // 2 + 1)
    reason = _disagreement(largest, list(sizes.values()).count(largest), nodes, needed, entries)
    if reason:
        return Verdict(accepted=frozenset(), rejected=everything, reason=reason)
    agreed = next(groups[key] for key, size in sizes.items() if size == largest)
    accepted = frozenset(proposal.execution_id for proposal in agreed)
    rejected = everything - accepted
    if rejected:
        reason = f"{largest} of {nodes} nodes agree; the rejected results differ from theirs"
    return Verdict(accepted=accepted, rejected=rejected, reason=reason)


def _key(proposal: Proposal, entries: Sequence[str]) -> _Key | None:
    """What must be equal, or None when the proposal lacks one of the entries."""
    if not entries:
        return (proposal.result_cid,)
    if any(name not in proposal.entries for name in entries):
        return None
    return tuple(proposal.entries[name] for name in entries)


def _disagreement(largest: int, ties: int, nodes: int, needed: int, entries: Sequence[str]) -> str:
    """Why no result is accepted; empty when one is."""
    if not nodes:
        return "there are no proposals"
    if not largest:
        return f"no result has all the entries to compare: {', '.join(entries)}"
    if largest < needed:
        return f"at most {largest} of {nodes} nodes agree, but {needed} must"
    if ties > 1:
        return f"{ties} groups of {largest} of {nodes} nodes agree on different results"
    return ""


def _params(spec: JobSpec) -> DeterministicParams:
    """Raises InvalidJob; the paths of its faults start with `Verifier.Params`."""
    try:
        params = read_params(DeterministicParams, spec.verifier)
    except InvalidJob as error:
        raise InvalidJob([replace(fault, path=f"Verifier.{fault.path}") for fault in error.faults]) from None
    faults = [
        Fault(f"Verifier.Params.Entries[{index}]", "must be a name without '/'")
        for index, name in enumerate(params.entries)
        if "/" in name
    ]
    if faults:
        raise InvalidJob(faults)
    return params
