"""Which bids are best."""

from __future__ import annotations

import itertools

import pytest
from pydantic import ValidationError

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.bprotocol.proposals import decode_proposal
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.node import ComputeInfo, NodeInfo
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.model.resources import Resources
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.requester.machine import Environment, RequesterMachine
from bacalhau_p2p.requester.ranking import RankedBid, ineligibility_reason, rank


class Counting:
    """A generator of rising numbers."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def random(self) -> float:
        return next(self._numbers) / 1000


def order(*bids: tuple[str, float, int], tried: tuple[str, ...] = ()) -> str:
    """The names of the nodes, best first; at random, an earlier one wins."""
    rng = Counting()
    made = [
        RankedBid(ExecutionID(name), PeerID(name), load, local, failures=tried.count(name))
        for name, load, local in bids
    ]
    ranked = rank(made, rng=rng)
    return "".join(bid.node for bid in ranked)


def test_the_least_loaded_node_comes_first_if_there_are_no_inputs():
    assert order(("a", 0.9, 0), ("b", 0.02, 0), ("c", 0.2, 0), ("d", 0.26, 0)) == "bcda"


def test_nodes_of_similar_load_are_ranked_by_their_local_inputs():
    assert order(("a", 0.05, 0), ("b", 0.2, 10), ("c", 0.1, 99)) == "cba"


def test_local_inputs_do_not_outweigh_a_much_higher_load():
    assert order(("a", 0.8, 99), ("b", 0.1, 0)) == "ba"


def test_nodes_with_equal_inputs_are_ranked_by_load_and_then_at_random():
    assert order(("a", 0.2, 5), ("b", 0.1, 5), ("c", 0.1001, 5)) == "bca"


def test_a_node_that_failed_the_job_comes_last():
    assert order(("a", 0.0, 99), ("b", 0.9, 0), tried=("a",)) == "ba"
    assert order(("a", 0.0, 99), ("b", 0.9, 0), tried=("a", "b", "a")) == "ba"


def test_a_node_with_a_penalty_comes_after_others_and_before_those_that_failed_the_job():
    names, rng = ("a", "b", "c"), Counting()
    made = [
        RankedBid(ExecutionID(name), PeerID(name), load, 99, int(name == "a"), penalised=name == "b")
        for name, load in zip(names, (0.0, 0.1, 0.9), strict=True)
    ]
    assert [bid.node for bid in rank(made, rng=rng)] == ["c", "b", "a"]


def test_the_bid_of_the_node_with_the_inputs_is_accepted():
    machine = RequesterMachine(
        Environment(peer_id=PeerID("me"), addresses=(), open_proposal=decode_proposal, rng=Counting())
    )
    room = Resources(cpu=8, memory=2**34, disk=2**40)
    for name in ("a", "b", "c"):
        compute = ComputeInfo(
            engines=("noop",), storage_sources=("ipfs",), publishers=("ipfs",), max_capacity=room
        )
        machine.handle(ev.NodeInfoReceived(NodeInfo(id=PeerID(name), compute=compute)), 0.0)
    source = {"Target": "/inputs", "Source": {"Type": "ipfs", "Params": {"CID": "bafkqaaa"}}}
    spec = job_from_mapping({"Tasks": [{"Engine": {"Type": "noop"}, "InputSources": [source]}]})
    machine.handle(ev.Submitted(JobID("j"), spec), 0.0)
    for name, local in (("a", 0), ("b", 10**9), ("c", 40)):
        bid = say.Bid(
            job_id=JobID("j"),
            execution_id=ExecutionID(f"e-{name}"),
            reserved_for=30,
            load=0.1 if name == "b" else 0.05,
            input_bytes=100,
            local_input_bytes=local,
        )
        machine.handle(ev.MessageReceived(PeerID(name), bid), 0.1)
    executions = machine.jobs[JobID("j")].executions
    assert {e.node_id: str(e.state) for e in executions.values()} == {
        "a": "BidRejected",
        "b": "BidAccepted",
        "c": "BidRejected",
    }
    # Nobody has more of an input than there is of it.
    assert {e.node_id: (e.local_input_bytes, e.input_bytes) for e in executions.values()} == {
        "a": (0, 100),
        "b": (100, 100),
        "c": (40, 100),
    }


def test_a_bid_may_omit_its_inputs_but_not_lie_about_their_range():
    plain = {"job_id": "j", "execution_id": "e", "reserved_for": 30.0}
    bid = say.Bid.model_validate(plain)
    assert (bid.input_bytes, bid.local_input_bytes) == (0, 0)
    for amount in (-1, 2**60 + 1, 1.5, "1"):
        with pytest.raises(ValidationError):
            say.Bid.model_validate({**plain, "input_bytes": amount})


def test_only_nodes_that_give_jobs_the_network_are_asked():
    room = Resources(cpu=8, memory=2**34, disk=2**40)
    compute = ComputeInfo(engines=("docker",), publishers=("ipfs",), max_capacity=room)
    network = {"Type": "HTTP", "Domains": ["example.com"]}
    engine = {"Type": "docker", "Params": {"Image": "x"}}
    spec = job_from_mapping({"Tasks": [{"Engine": engine, "Network": network}]})
    node = NodeInfo(id=PeerID("a"), compute=compute)
    assert ineligibility_reason(node, spec) == "runs no jobs with the network HTTP"
    assert ineligibility_reason(node.replace(compute=compute.replace(networks=("HTTP",))), spec) is None
