"""Ops jobs and jobs that are divided keep their promises in networks with faults, and code that does not is
noticed."""

from __future__ import annotations

import pytest

from tests.simulation import __main__ as program
from tests.simulation.mutants import MUTANTS_OF_DIVIDED, mutated
from tests.simulation.plans.divided import with_divided_jobs
from tests.simulation.plans.expand import expand
from tests.simulation.plans.kinds import KINDS
from tests.simulation.worlds.campaign import campaign
from tests.simulation.worlds.coverage import every_row
from tests.simulation.worlds.world import World

RUNS = 60
OF_THESE_KINDS = {
    "requester new + NodeAbsent",
    "job Queued + NodesFailed",
    "job Queued + NodesUnsuitable",
    "job Running + NodesFailed",
}
"""Rows that only such jobs take."""
NOT_TAKEN_HERE = {"job Pending + NodesFailed", "job Pending + NodesUnsuitable"}
"""`tests/requester` has both: the first needs nodes that leave within a moment, the second very many."""


@pytest.fixture(scope="module")
def tally():
    return campaign(1, RUNS, kind="divided", processes=1)


def test_no_world_breaks_a_promise(tally):
    assert tally.violations == []


def test_the_rows_of_ops_jobs_are_taken(tally):
    taken = {row for row in OF_THESE_KINDS if tally.rows[row]}
    assert taken >= {"requester new + NodeAbsent", "job Running + NodesFailed"}
    assert set(every_row()) >= NOT_TAKEN_HERE | OF_THESE_KINDS


def test_plans_have_ops_jobs_and_more_partitions_than_nodes():
    plans = [with_divided_jobs(expand(seed)) for seed in range(30)]
    assert any(job.ops for plan in plans for job in plan.jobs)
    assert any(job.count > len(plan.nodes) and job.replicas for plan in plans for job in plan.jobs)


@pytest.mark.parametrize("name", MUTANTS_OF_DIVIDED)
def test_each_mutant_is_noticed(name):
    with mutated(name):
        assert any(World(KINDS["divided"](seed)).run().violation for seed in range(1, 40))


def test_the_program_looks_for_a_mutant_in_worlds_of_its_kind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    name = "refill the slots of ops jobs"
    monkeypatch.setattr(program, "MUTANTS_OF", {"divided": {name: MUTANTS_OF_DIVIDED[name]}})
    assert program.main(["--mutants", "--runs", "40"]) == 0
    assert capsys.readouterr().out.startswith(f"{name}: seed ")
    monkeypatch.setattr(program, "MUTANTS_OF", {"any": {name: MUTANTS_OF_DIVIDED[name]}})
    assert program.main(["--mutants", "--runs", "4"]) == 1
