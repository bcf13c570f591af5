"""Where the inputs of jobs were seen lately."""

from __future__ import annotations

import pytest

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.execution import Execution, PublishedResult
from bacalhau_p2p.model.job import JobSpec, SpecConfig
from bacalhau_p2p.model.state import ExecutionState
from bacalhau_p2p.requester.holders import ASK_AGAIN_AFTER, MAX_HOLDERS, MAX_SOURCES, Holders
from tests.support.machines.requester_bench import JOB, A, B, C, execution_id, job
from tests.support.results import result_cid


def wanting(*sources: dict[str, object]) -> JobSpec:
    inputs = [{"Target": f"/in{number}", "Source": source} for number, source in enumerate(sources)]
    return job(Tasks=[{"Engine": {"Type": "noop"}, "InputSources": inputs}])


def content(cid: str) -> JobSpec:
    return wanting({"Type": "ipfs", "Params": {"CID": cid}})


ICE = wanting({"Type": "url", "Params": {"URL": "https://example.org/ice"}})
ICE_AND_SNOW = wanting(
    {"Type": "url", "Params": {"URL": "https://example.org/ice"}},
    {"Type": "url", "Params": {"URL": "https://example.org/snow"}},
)


def bid(node: PeerID, local: int, total: int = 10) -> say.Bid:
    return say.Bid(
        job_id=JOB,
        execution_id=execution_id(node),
        reserved_for=3,
        input_bytes=total,
        local_input_bytes=local,
    )


def execution(node: PeerID, publisher: str | None = None) -> Execution:
    published = None
    if publisher is not None:
        published = PublishedResult(cid=result_cid("right"), location=SpecConfig(type=publisher))
    return Execution(
        id=execution_id(node),
        job_id=JOB,
        node_id=node,
        state=ExecutionState.COMPLETED,
        created=0,
        modified=0,
        published=published,
    )


@pytest.fixture
def holders() -> Holders:
    return Holders()


def test_a_node_whose_bid_says_that_all_inputs_are_there_has_them(holders):
    holders.bid(ICE, A, bid(A, 10))
    holders.bid(ICE, B, bid(B, 9))
    holders.bid(ICE, C, bid(C, 0, 0))
    assert holders.of(ICE) == [A]


def test_a_node_that_does_not_have_them_any_more_is_forgotten(holders):
    holders.bid(ICE, A, bid(A, 10))
    holders.bid(ICE, A, bid(A, 0))
    assert holders.of(ICE) == []


def test_a_node_that_has_run_the_job_has_its_inputs_until_it_fails(holders):
    holders.completed(ICE, execution(A))
    assert holders.of(ICE) == [A]
    holders.failed(ICE, A)
    assert holders.of(ICE) == []


def test_those_that_only_say_so_do_not_displace_those_that_have_used_an_input(holders):
    holders.completed(ICE, execution(A))
    for number in range(5 * MAX_HOLDERS):
        liar = PeerID(f"liar-{number}")
        holders.bid(ICE, liar, bid(liar, 10))
    assert holders.of(ICE)[0] == A
    assert len(holders.of(ICE)) == 1 + MAX_HOLDERS // 2
    holders.failed(ICE, PeerID("liar-39"))
    assert PeerID("liar-39") not in holders.of(ICE)


@pytest.mark.parametrize("name", ["{}", "ipfs://{}", "{}/outputs/answer"])
def test_a_node_has_the_result_that_it_has_published(holders, name):
    holders.completed(job(), execution(A, "ipfs"))
    assert holders.of(content(name.format(result_cid("right")))) == [A]
    assert holders.of(content(result_cid("wrong"))) == []


def test_a_result_that_went_elsewhere_is_not_looked_for_on_its_node(holders):
    holders.completed(job(), execution(A, "s3"))
    assert holders.of(content(result_cid("right"))) == []


def test_nodes_with_most_of_the_inputs_come_first(holders):
    holders.completed(ICE, execution(A))
    holders.completed(ICE_AND_SNOW, execution(B))
    holders.completed(ICE, execution(C))
    assert holders.of(ICE) == [C, B, A]
    assert holders.of(ICE_AND_SNOW) == [B, C, A]


def test_connected_nodes_are_asked_once_in_a_while_for_inputs_that_nobody_is_known_to_have(holders):
    assert holders.may_ask(ICE, now=0)
    assert not holders.may_ask(ICE, now=ASK_AGAIN_AFTER - 1)
    assert not holders.may_ask(ICE_AND_SNOW, now=1)
    assert holders.may_ask(ICE, now=ASK_AGAIN_AFTER)
    holders.completed(ICE, execution(A))
    assert not holders.may_ask(ICE, now=2 * ASK_AGAIN_AFTER)


def test_a_job_whose_data_is_part_of_it_has_no_holders(holders):
    inner = wanting({"Type": "inline", "Params": {"URL": "data:,x"}})
    holders.completed(inner, execution(A))
    assert holders.of(inner) == []
    assert not holders.may_ask(inner, now=0)


def test_what_is_remembered_of_holders_is_bounded(holders):
    for number in range(MAX_SOURCES + 10):
        other = wanting({"Type": "url", "Params": {"URL": f"https://example.org/{number}"}})
        holders.completed(other, execution(A))
        holders.may_ask(wanting({"Type": "url", "Params": {"URL": f"https://example.com/{number}"}}), now=0)
    for number in range(MAX_HOLDERS + 10):
        holders.completed(ICE, execution(PeerID(f"node-{number}")))
    assert len(holders.of(ICE)) == MAX_HOLDERS
    assert len(holders) == MAX_SOURCES
    first = wanting({"Type": "url", "Params": {"URL": "https://example.com/0"}})
    assert holders.may_ask(first, now=1), "the oldest questions are forgotten"
