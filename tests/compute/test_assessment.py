"""What a node knows of a job as soon as it is announced."""

from __future__ import annotations

from math import nextafter

import pytest

from bacalhau_p2p.bprotocol.draw import lot
from bacalhau_p2p.bprotocol.messages import JobAnnounced
from bacalhau_p2p.compute.assessment import Assessor, JobSelectionPolicy, Offer
from bacalhau_p2p.compute.bidding import NOT_DRAWN, Assessment
from bacalhau_p2p.errors import Fault
from bacalhau_p2p.model.access_list import AccessList
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.resources import Resources
from tests.support.machines.compute_bench import JOB, small_job

NODE = PeerID("12D3KooWnode")
ALICE_ONLY = AccessList(allowed=frozenset({"alice"}))
INPUT = {"Target": "/in", "Source": {"Type": "ipfs", "Params": {"CID": "bafkqaaa"}}}


def no_faults(config):
    return []


def finds(fault):
    return lambda config: [fault]


def assess(
    job=None,
    *,
    engines=(),
    sources=(),
    publishers=(),
    no_networks=(),
    shortage=None,
    requester="alice",
    chance=1.0,
    **policy,
) -> Assessment:
    offer = Offer(
        engines={"noop": no_faults, "container": no_faults, **dict(engines)},
        sources=dict(sources),
        publishers={"ipfs": no_faults, **dict(publishers)},
        no_networks=dict(no_networks),
        outliving=frozenset({"container"}),
    )
    assessor = Assessor(
        node_id=NODE,
        offer=lambda: offer,
        labels={"zone": "a"},
        policy=JobSelectionPolicy(**policy),
        resource_shortage=lambda: shortage,
    )
    announcement = JobAnnounced(
        job_id=JOB, spec=job or small_job(), bids_wanted=3, round=1, chance=chance, deadline=60.0
    )
    return assessor.assess(requester, announcement)


def test_the_draw_comes_before_anything_else_is_looked_at():
    looked = []
    engines = {"noop": lambda config: looked.append(config) or []}
    mine = lot(JOB, NODE)
    assert assess(engines=engines, chance=mine) == Assessment(drawn=False)
    assert assess(small_job(Constraints=[]), requester="bob", requesters=ALICE_ONLY, chance=mine) == NOT_DRAWN
    assert looked == []
    assert assess(engines=engines, chance=nextafter(mine, 1)) == Assessment()
    assert len(looked) == 1


def test_a_job_without_inputs_needs_no_inspection_unless_there_are_probes():
    assert assess() == Assessment()
    assert assess(probed=True) == Assessment(needs_inspection=True)


def test_a_job_with_inputs_needs_an_inspection():
    job = small_job(task={"InputSources": [INPUT]})
    assert assess(job, sources={"ipfs": no_faults}) == Assessment(needs_inspection=True)


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        ({"task": {"Engine": {"Type": "docker", "Params": {"Image": "x"}}}}, "has no docker engine"),
        ({"task": {"InputSources": [INPUT]}}, "has no ipfs storage provider"),
        ({"task": {"Publisher": {"Type": "local"}}}, "has no local publisher"),
        (
            {"Constraints": [{"Key": "zone", "Operator": "=", "Values": ["b"]}]},
            "does not match the job's constraints",
        ),
        ({"task": {"Network": {"Type": "Full"}}}, "accepts no jobs that need network access"),
    ],
)
def test_a_job_that_this_node_will_not_run_is_ineligible_for_a_reason(job, reason):
    assert assess(small_job(**job)) == Assessment(ineligibility=reason)


def test_the_policy_may_accept_networked_jobs_and_reject_those_without_inputs():
    networked = small_job(task={"Network": {"Type": "Full"}})
    assert assess(networked, networks=frozenset({"HTTP", "Full"})).ineligibility is None
    assert assess(networked, networks=frozenset({"HTTP"})).ineligibility == (
        "accepts no jobs with the network Full, only HTTP"
    )
    assert assess(reject_stateless=True).ineligibility == "accepts no jobs without inputs"
    with_input = small_job(task={"InputSources": [INPUT]})
    assert assess(with_input, sources={"ipfs": no_faults}, reject_stateless=True).ineligibility is None


def test_the_operators_domains_and_the_engines_networks_decide_about_jobs_with_the_network_http():
    job = small_job(task={"Network": {"Type": "HTTP", "Domains": ["example.com", ".example.org"]}})
    http = frozenset({"HTTP"})
    assert assess(job, networks=http).ineligibility is None
    assert assess(job, networks=http, network_domains=(".example.com", ".example.org")).ineligibility is None
    assert assess(job, networks=http, network_domains=(".example.com", "example.org")).ineligibility == (
        "lets no job reach .example.org"
    )
    missing = {"noop": {"HTTP": "it is asleep"}}
    assert assess(job, networks=http, no_networks=missing).ineligibility == (
        "cannot give a noop job the network HTTP: it is asleep"
    )


def test_a_node_gives_a_network_when_one_of_its_engines_does():
    offer = Offer(engines={"noop": no_faults}, no_networks={"noop": {"HTTP": "why"}, "docker": {}})
    assert not offer.gives("HTTP")
    assert offer.gives("Full")


@pytest.mark.parametrize(
    ("adapters", "reason"),
    [
        ({"engines": {"noop": finds(Fault("Params.ExitCode", "not a number"))}}, "Tasks[0].Engine"),
        ({"publishers": {"ipfs": finds(Fault("Params.ExitCode", "not a number"))}}, "Tasks[0].Publisher"),
        (
            {"sources": {"ipfs": finds(Fault("Params.ExitCode", "not a number"))}},
            "Tasks[0].InputSources[0].Source",
        ),
    ],
)
def test_an_adapters_fault_is_a_reason_with_its_path(adapters, reason):
    job = small_job(task={"InputSources": [INPUT]}) if "sources" in adapters else None
    assert assess(job, **adapters).ineligibility == f"{reason}.Params.ExitCode: not a number"


def test_an_adapter_whose_check_raises_makes_the_job_ineligible(caplog):
    def broken(config):
        raise KeyError("image")

    assessment = assess(engines={"noop": broken})
    assert assessment.ineligibility == "KeyError in this node's check of the job: 'image'"
    assert "adapter_fault" in caplog.text


class Panic(BaseException):
    """As native libraries raise it."""


@pytest.mark.parametrize("error", [UnicodeError("xn--a"), RecursionError(), MemoryError(), Panic()])
def test_nothing_that_an_adapters_check_raises_ends_the_node(error):
    def broken(config):
        raise error

    assert assess(engines={"noop": broken}).ineligibility is not None


@pytest.mark.parametrize("wrong", [None, "text", ["text"], 1])
def test_a_check_that_returns_nonsense_makes_the_job_ineligible(wrong):
    assert "returned" in assess(engines={"noop": lambda config: wrong}).ineligibility


def test_a_shortage_is_noted_for_jobs_that_this_node_would_run():
    assert assess(shortage="has almost no free disk") == Assessment(shortage="has almost no free disk")
    ineligible = small_job(task={"Network": {"Type": "Full"}})
    assert assess(ineligible, shortage="has almost no free disk").shortage is None


def test_a_run_outlives_its_node_if_its_engine_does():
    container = small_job(task={"Engine": {"Type": "container"}})
    assert assess(container) == Assessment(outlives_node=True)


def test_jobs_of_requesters_that_the_operator_does_not_want_are_declined_before_anything_else():
    reason = "accepts no jobs from this requester"
    bob = AccessList(allowed=frozenset({"bob"}), denied=frozenset({"carol"}))
    nonsense = small_job(task={"Engine": {"Type": "unknown"}})
    assert assess(nonsense, requesters=bob).ineligibility == reason
    assert assess(requester="bob", requesters=bob).ineligibility is None
    assert assess(requester="carol", requesters=bob).ineligibility == reason
    assert assess(requester="carol").ineligibility is None


def test_jobs_that_may_run_longer_than_the_operator_allows_are_declined_with_that_reason():
    year, minute = (small_job(task={"Timeouts": {"ExecutionTimeout": n}}) for n in (31536000, 60))
    reason = "accepts no jobs with an execution timeout of more than 60 s"
    assert assess(year, max_execution_time=60).ineligibility == reason
    assert assess(minute, max_execution_time=60).ineligibility is None
    assert assess(year).ineligibility is None


@pytest.mark.parametrize(
    ("asked", "limit", "reason"),
    [
        ({"CPU": "2"}, Resources(cpu=2), None),
        ({"CPU": "2.5"}, Resources(cpu=2), "accepts no jobs with more than 2 CPU"),
        ({"Memory": "3GB"}, Resources(memory=2 * 10**9), "accepts no jobs with more than 2 GB of memory"),
        ({"Disk": "3GB"}, Resources(disk=2 * 10**9), "accepts no jobs with more than 2 GB of disk"),
        ({"GPU": "2"}, Resources(gpu=1), "accepts no jobs with more than 1 GPUs"),
        ({"CPU": "99", "Memory": "1TB", "GPU": "9"}, Resources(), None),
    ],
)
def test_a_job_that_asks_for_more_than_one_job_may_have_is_declined_with_the_amount(asked, limit, reason):
    job = small_job(task={"Resources": asked})
    assert assess(job, job_limit=limit).ineligibility == reason
