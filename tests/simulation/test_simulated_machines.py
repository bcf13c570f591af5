"""Networks of the real machines keep every promise, and the simulator notices code that does not."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.bprotocol import processed_ids
from bacalhau_p2p.components.protocol import Store
from tests.simulation.__main__ import main
from tests.simulation.checks import jobs as job_checks
from tests.simulation.checks.messages import MessageChecks
from tests.simulation.mutants import MUTANTS, mutated
from tests.simulation.plans.expand import abandoned, expand, returning
from tests.simulation.plans.faults import POINTS
from tests.simulation.plans.kinds import KINDS
from tests.simulation.plans.plan import CrashPoint, Forgery, JobPlan, NodePlan, Plan
from tests.simulation.plans.rng import rng_for
from tests.simulation.worlds.campaign import campaign
from tests.simulation.worlds.coverage import every_row, every_state
from tests.simulation.worlds.shrink import ddmin, shrunk
from tests.simulation.worlds.story import fingerprint, story
from tests.simulation.worlds.world import World

RUNS = 100
FORGETFUL_RUNS = 60
RARE_ROWS = (
    134,
    158,
    172,
    256,
    335,
    381,
    519,
    957,
    1535,
    3007,
    3600,
    50_091,
)
"""Seeds of worlds that take rare rows."""
NOT_TAKEN_HERE = {
    "compute Bid + RequesterCutOff",
    "compute Preparing + DeadlinePassed",
    "compute Preparing + RequesterGone",
    "compute Preparing + RoomLost",
    "compute Proposed + DeadlinePassed",
    "compute Proposed + ResultDisplaced",
    "compute Publishing + DeadlinePassed",
    "compute Publishing + NodeStopped",
    "compute Publishing + ResultDisplaced",
    "compute Running + RoomLost",
    "job Pending + NodesFailed",
    "job Pending + NodesUnsuitable",
    "job Pending + QueueTimedOut",
    "job Pending + TotalTimedOut",
    "job Queued + AttemptsExhausted",
    "job Queued + JobImpossible",
    "job Queued + NodesFailed",
    "job Queued + NodesUnsuitable",
    "job Queued + ResultsRejected",
    "job Queued + VerificationFailed",
    "job Running + NodesFailed",
    "requester BidReceived + BidExpired",
    "requester BidReceived + BidWithdrawn",
    "requester new + NodeAbsent",
}
"""Rows that no world takes, or none that is quick to run; `tests/requester` and `tests/compute` test each."""
RARE = {"compute Expired"}
"""States that are reached only after a day of a world's time."""
WHOLE_DAY = 688
"""The seed of a world whose requester leaves for good while its job runs."""
REGRESSIONS = [
    (kind, int(seed))
    for line in (Path(__file__).parent / "regressions.txt").read_text().splitlines()
    if line and not line.startswith("#")
    for kind, seed, *_ in [line.split()]
]
CAUGHT_BY = {
    "accept two bids a slot": 3,
    "accept what the verifier rejected": 10,
    "acknowledge before the commit": 7,
    "announce once": 18,
    "begin steps before the commit": 2069,
    "believe any root": 110,
    "believe what is published": 7,
    "commit without power safety": 16,
    "forget attempts when started again": 145,
    "forget to reject bids": 12,
    "forget who called a failure permanent": 388,
    "forget which runs outlive their nodes": 10,
    "give up containers as anything else": 3,
    "ignore cancellations": 7,
    "ignore the total timeout": 33,
    "keep answers about what is over": 44,
    "let bids steal ids": 7,
    "never give up": 46,
    "never give up a silent node": 10,
    "never reconcile": 18,
    "never refill a slot": 5,
    "never repeat": 5,
    "repeat without back-off": 12,
    "reserve more than there is": 7,
    "resume no executions": 3,
    "resume no jobs": 9,
    "resume only pending jobs": 10,
    "resume without heartbeats": 223,
    "run again what still runs": 33,
    "run for requesters that are gone": 1535,
    "send no heartbeats": 18,
}
"""A seed that shows the mutant. The others are shown by seed 1."""
SOONER_OR_LATER = 1000
"""Number of worlds within which each mutant must be found."""


SMALL = Plan(
    seed=1,
    nodes=(NodePlan(name="r0", requester=True, compute=False), NodePlan(name="c1"), NodePlan(name="c2")),
    jobs=(JobPlan(name="j0", requester="r0", at=3.0, count=2, verifier="deterministic", run=3.0),),
    heal_at=60.0,
    mild=True,
)
"""One job that must complete whichever node is away for a short time."""


@pytest.fixture(scope="module")
def tally():
    total = campaign(1, RUNS)
    for seed in RARE_ROWS:
        total.add(campaign(seed, 1))
    return total


def test_every_promise_is_kept_in_every_world(tally):
    assert tally.violations == []


def test_every_row_of_the_tables_is_taken(tally):
    # A simulated store accepts every record; `tests/components` has those that are refused.
    expected = {row for row in every_row() if not row.endswith(" + RecordRefused")}
    assert {row for row in expected if not tally.rows[row]} == NOT_TAKEN_HERE


def test_every_state_is_reached(tally):
    assert {state for state in every_state() if not tally.states[state]} <= RARE


def test_jobs_come_to_every_end(tally):
    assert {end for end, number in tally.ends.items() if number} >= {"Completed", "Failed", "Stopped"}


@pytest.mark.parametrize(("kind", "seed"), REGRESSIONS)
def test_a_world_that_failed_once_passes(kind, seed):
    assert World(KINDS[kind](seed)).run().violation is None


RETURNING = range(1, 41)


def test_a_container_whose_node_is_back_within_a_minute_runs_once():
    """Other nodes are free, and the jobs complete with the results of the first runs."""
    struck: Counter[str] = Counter()
    for seed in RETURNING:
        world = World(returning(seed, rng_for(seed, "plan")))
        outcome = world.run()
        assert outcome.violation is None, str(outcome.plan)
        struck += outcome.struck
    assert struck["crash"] >= 40
    assert struck["partition"] >= 40


def test_a_container_that_is_run_again_too_soon_is_noticed():
    def without_its_other_promise(seed):
        """Whether it is noticed at the end of the world, and not only when it happens."""
        with (
            mutated("give up containers as anything else"),
            mock.patch.object(job_checks, "LOST_CONTACT", "?"),
        ):
            return World(returning(seed, rng_for(seed, "plan"))).run().violation

    broken = {found.promise for seed in RETURNING if (found := without_its_other_promise(seed))}
    assert "once" in broken


@pytest.mark.parametrize("power", [False, True])
def test_a_job_completes_wherever_in_a_commit_a_node_dies(power):
    """At every place on the way of one job, one after the other. No execution is lost."""
    struck = 0
    for node, point, commit in itertools.product(("r0", "c1"), POINTS, range(1, 12)):
        fault = CrashPoint(node=node, commit=commit, point=point, down=1.0, power=power)
        world = World(replace(SMALL, faults=(fault,)))
        outcome = world.run()
        assert outcome.violation is None, str(outcome.plan)
        struck += any(name.startswith("crash") for name in outcome.struck)
    assert struck >= 40


def test_a_result_expires_after_a_day_if_its_requester_does_not_return():
    world = World(expand(WHOLE_DAY))
    outcome = world.run()
    assert outcome.violation is None
    assert world.watch.states["compute Expired"] == 1
    assert outcome.ended > 24 * 3600


@pytest.mark.parametrize("seed", range(8))
def test_only_runs_of_requesters_that_are_gone_for_an_hour_are_stopped(seed):
    world = World(abandoned(seed, rng_for(seed, "plan")))
    outcome = world.run()
    assert outcome.violation is None, str(outcome.plan)
    assert world.watch.states["compute Cancelled"] == 1
    assert world.watch.states["compute Completed"] == 1
    assert world.users.ends() == ["Running", "Completed"], "the one that left does not learn of it"


@pytest.mark.parametrize("seed", [3, 12, 46])
def test_a_seed_gives_the_same_world_again(seed):
    assert fingerprint(World(expand(seed)).run()) == fingerprint(World(expand(seed)).run())


def test_a_seed_gives_the_same_world_in_every_process():
    code = (
        "from tests.simulation.plans.expand import expand\n"
        "from tests.simulation.worlds.story import story\n"
        "from tests.simulation.worlds.world import World\n"
        "for line in story(World(expand(10)).run()): print(line)"
    )
    stories = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(stories) == 1


@pytest.mark.parametrize("name", MUTANTS)
def test_each_mutant_is_noticed(name):
    hint = CAUGHT_BY.get(name, 1)
    with mutated(name):
        found = World(expand(hint)).run().violation or _first_violation()
    assert found is not None


def _first_violation():
    tally = campaign(1, SOONER_OR_LATER, stop_at_first=True)
    return tally.violations[0] if tally.violations else None


def test_a_failing_plan_shrinks_to_what_is_needed():
    with mutated("let bids steal ids"):
        outcome = World(expand(CAUGHT_BY["let bids steal ids"])).run()
        assert outcome.violation is not None
        small = shrunk(outcome.plan, outcome.violation.promise)
        again = World(small).run().violation
    assert again is not None
    assert again.promise == "forgery"
    assert any(isinstance(fault, Forgery) for fault in small.faults)
    assert len(small.faults) + len(small.jobs) + len(small.nodes) <= 6
    assert len(small.faults) < len(outcome.plan.faults)


def test_delta_debugging_finds_the_two_that_matter():
    assert ddmin(list(range(20)), lambda items: {3, 17} <= set(items)) == [3, 17]


def test_the_story_of_a_failing_world_ends_with_the_broken_promise():
    with mutated("forget to release when a run ends"):
        outcome = World(expand(1)).run()
    *_, before, last = story(outcome)
    assert "RunFinished" in before
    assert last.endswith(str(outcome.violation))


def test_the_command_reports_and_its_exit_status_tells_whether_promises_were_kept(capsys):
    assert main(["--runs", "3", "--first-seed", "1", "--processes", "1"]) == 0
    assert "violations  0" in capsys.readouterr().out
    with mutated("drop the dedupe"):
        assert main(["--runs", "1", "--first-seed", "1", "--processes", "1"]) == 1
        assert "scripts/simulate --kind any --seed 1" in capsys.readouterr().out
        assert main(["--seed", "1"]) == 1
        assert "repeat:" in capsys.readouterr().out.splitlines()[-1]


def test_the_command_draws_its_first_seed_and_prints_it(capsys):
    assert [main(["--runs", "1", "--processes", "1"]) for _ in range(2)] == [0, 0]
    first, second = [
        line.split()[-1] for line in capsys.readouterr().out.splitlines() if line.startswith("first seed")
    ]
    assert first != second
    main(["--runs", "1", "--first-seed", first, "--processes", "1"])
    assert f"first seed  {first}" in capsys.readouterr().out


def test_a_repeat_that_is_no_longer_remembered_has_no_effect():
    again: set[tuple[object, object, object]] = set()
    handled, as_usual = [], MessageChecks.handled

    def handling(checks, store, arrival):
        if arrival.id is not None and (arrival.author, arrival.id) in store.inbox:
            again.add((store, arrival.author, arrival.id))

    def check(checks, peer, store, arrival, actions):
        if (store, arrival.author, arrival.id) in again and not isinstance(arrival.message, say.Bid):
            handled.append(arrival.message.kind)  # a bid is not stored: after a restart it counts again
            assert [action for action in actions if isinstance(action, Store)] == []
        as_usual(checks, peer, store, arrival, actions)

    remembers_two = mock.patch.object(processed_ids, "REMEMBERED_IDS", 2)
    with (
        remembers_two,
        mock.patch.object(MessageChecks, "handling", handling),
        mock.patch.object(MessageChecks, "handled", check),
    ):
        for seed in range(1, FORGETFUL_RUNS):
            outcome = World(expand(seed)).run()
            assert outcome.violation is None, f"{seed}: {outcome.violation}"
    assert len(set(handled)) > 3
