"""The verifier that trusts agreement: what enough nodes found independently is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import trio

from bacalhau_p2p.errors import Fault, VerifierError
from bacalhau_p2p.model.execution import Proposal
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.verifiers.interface import Verdict

Key = tuple[str, ...]
"""What of a proposal must agree: the result CID, or the CIDs of the chosen entries."""


class DeterministicVerifier:
    """Accepts the largest group of equal proposals when it is the only one of its size and large enough.

    Parameters of the job's `Verifier`, both optional:

    - `Confidence`: how many nodes must agree. 0, the default, means more than half of those who
      proposed, and at least two.
    - `Entries`: names of top-level entries of the results folder (`stdout`, `outputs`). Only these
      must agree, and a proposal without one of them is rejected. By default the whole folder must.
    """

    @property
    def type(self) -> str:
        return "deterministic"

    def faults(self, spec: JobSpec) -> list[Fault]:
        found = _parameter_faults(spec.verifier.params)
        if not found and _confidence(spec.verifier.params) > spec.count:
            found.append(
                Fault(
                    "Verifier.Params.Confidence",
                    f"{_confidence(spec.verifier.params)} nodes can never agree when Count is {spec.count}",
                )
            )
        return found

    async def verify(self, spec: JobSpec, proposals: Sequence[Proposal]) -> Verdict:
        """Raises VerifierError when the job's parameters for it have faults."""
        await trio.lowlevel.checkpoint()
        if found := _parameter_faults(spec.verifier.params):
            raise VerifierError("; ".join(map(str, found)))
        return judge(
            proposals,
            confidence=_confidence(spec.verifier.params),
            entries=spec.verifier.params.get("Entries") or (),
        )


def judge(proposals: Sequence[Proposal], *, confidence: int, entries: Sequence[str] = ()) -> Verdict:
    """The verdict over these proposals; pure.

    Nodes are counted, not proposals: a node that speaks twice does not agree with itself.
    """
    everybody = frozenset(proposal.execution_id for proposal in proposals)
    groups: dict[Key, list[Proposal]] = {}
    for proposal in proposals:
        key = _key(proposal, entries)
        if key is not None:
            groups.setdefault(key, []).append(proposal)
    nodes = len({proposal.node_id for proposal in proposals})
    sizes = {key: len({proposal.node_id for proposal in group}) for key, group in groups.items()}
    largest = max(sizes.values(), default=0)
    needed = confidence or max(2, nodes // 2 + 1)
    reason = _why_not(largest, list(sizes.values()).count(largest), nodes, needed, entries)
    if reason:
        return Verdict(accepted=frozenset(), rejected=everybody, reason=reason)
    agreed = next(groups[key] for key, size in sizes.items() if size == largest)
    accepted = frozenset(proposal.execution_id for proposal in agreed)
    rejected = everybody - accepted
    if rejected:
        reason = f"{largest} of {nodes} nodes agree; the rejected results differ from theirs"
    return Verdict(accepted=accepted, rejected=rejected, reason=reason)


def _key(proposal: Proposal, entries: Sequence[str]) -> Key | None:
    """What must agree, or None when the proposal lacks a part of it."""
    if not entries:
        return (proposal.result_cid,)
    if any(name not in proposal.entries for name in entries):
        return None
    return tuple(proposal.entries[name] for name in entries)


def _why_not(largest: int, ties: int, nodes: int, needed: int, entries: Sequence[str]) -> str:
    """Why there is no agreement, in words; empty when there is."""
    if not nodes:
        return "there are no proposals"
    if not largest:
        return f"no result has all of the entries that must agree: {', '.join(entries)}"
    if largest < needed:
        return f"at most {largest} of {nodes} nodes agree, {needed} must"
    if ties > 1:
        return f"{ties} groups of {largest} of {nodes} nodes agree on different results"
    return ""


def _confidence(params: Mapping[str, Any]) -> int:
    return int(params.get("Confidence") or 0)


def _parameter_faults(params: Mapping[str, Any]) -> list[Fault]:
    found = []
    confidence = params.get("Confidence", 0)
    if isinstance(confidence, bool) or not isinstance(confidence, int):
        found.append(Fault("Verifier.Params.Confidence", "not a whole number"))
    elif confidence < 0:
        found.append(Fault("Verifier.Params.Confidence", "negative"))
    entries = params.get("Entries", ())
    if not isinstance(entries, list | tuple):
        found.append(Fault("Verifier.Params.Entries", "not a list of names"))
    else:
        found.extend(
            Fault(f"Verifier.Params.Entries[{index}]", "not the name of a top-level entry")
            for index, name in enumerate(entries)
            if not isinstance(name, str) or not name or "/" in name
        )
    return found
