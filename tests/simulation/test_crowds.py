"""What a job costs in a network of a hundred nodes, whatever its requesters know of it."""

from __future__ import annotations

import pytest

from tests.simulation.crowds.crowd import CrowdPlan, run, variants
from tests.simulation.crowds.figures import message_limit, shortcomings
from tests.support.fresh_seeds import fresh_seed

JOBS = 36


@pytest.fixture(scope="module")
def plans():
    plan = CrowdPlan(seed=fresh_seed("scripts/simulate --nodes 100"), nodes=100, jobs=JOBS)
    return dict(variants(plan))


def test_a_hundred_nodes_cost_as_much_as_ten_and_jobs_are_placed_in_one_round(plans):
    few, many = (run(CrowdPlan(seed=1, nodes=nodes, jobs=JOBS)) for nodes in (10, 100))
    for shown in (few, many):
        assert shortcomings(shown, exact=True) == []
        assert shown.rounds == {1: JOBS}
        assert all(most <= message_limit(count) for count, (_, most) in shown.messages.items())
    assert many.messages[1][0] < few.messages[1][0] + 3


@pytest.mark.parametrize(
    "name",
    [
        "known as it is",
        "a tenth of it known",
        "nine of ten known nodes gone",
        "with faults",
        "40 nodes connected",
        "40 nodes connected, with faults",
        "40 nodes connected, jobs with inputs",
        "a tenth of it known, jobs with inputs",
        "nine of ten known nodes gone, jobs with inputs",
    ],
)
def test_no_job_fails_and_nearly_all_are_placed_in_two_rounds(plans, name):
    """One job may be unlucky: a hundred times as many would be needed to tell 99 % from 97 %."""
    shown = run(plans[name])
    assert shown.completed == JOBS
    assert shown.placed_in_two >= 1 - 2 / JOBS


def test_nodes_that_are_not_asked_hear_nothing_of_a_job(plans):
    shown = run(plans["40 nodes connected"])
    assert shortcomings(shown, exact=True) == []
    assert (shown.rounds, shown.broadcasts) == ({1: JOBS}, 0)


def test_nor_do_they_if_the_job_has_inputs_that_some_connected_nodes_have(plans):
    """Connected nodes are asked once who has them: on the average a job costs less than the limit."""
    shown = run(plans["40 nodes connected, jobs with inputs"])
    assert shortcomings(shown, exact=True) == []
    assert (shown.rounds, shown.broadcasts) == ({1: JOBS}, 0)


def test_a_network_that_is_ten_times_as_large_as_known_is_not_flooded_for_long(plans):
    """Three requesters learn it from their first jobs. A hundred bids and answers a job were 200."""
    shown = run(plans["a tenth of it known"])
    assert sum(average for average, _ in shown.messages.values()) / len(shown.messages) < 120
