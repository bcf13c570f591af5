"""`python -m tests.simulation`: run worlds, and report what they showed."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from tests.simulation.checks.violation import Violation
from tests.simulation.crowds.crowd import CrowdPlan, run, variants
from tests.simulation.crowds.figures import report, shortcomings
from tests.simulation.mutants import MUTANTS_OF, mutated
from tests.simulation.plans.kinds import KINDS
from tests.simulation.tally import Tally
from tests.simulation.worlds.campaign import campaign
from tests.simulation.worlds.coverage import every_row, every_state
from tests.simulation.worlds.shrink import shrunk
from tests.simulation.worlds.story import jobs_in, story
from tests.simulation.worlds.world import World
from tests.support.fresh_seeds import random_seed

WORLDS_OF_MUTANTS = 2100
"""Worlds from seed 1 on that are enough to notice each mutant. Most take some ten."""


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 if every promise was kept, 1 if one was broken, 2 for wrong arguments."""
    options = _options(arguments)
    if options.nodes:
        return _run_crowds(options)
    if options.services:
        return _run_services(options)
    if options.mutants:
        return _run_mutants(options)
    if options.seed is not None:
        return _show_world(options)
    first = _first_seed(options)
    tally = campaign(first, options.runs or 500, kind=options.kind, processes=options.processes)
    print("\n".join(_report(first, tally, options.kind)))  # noqa: T201
    return 1 if tally.violations else 0


def _options(arguments: list[str] | None) -> Namespace:
    parser = ArgumentParser(
        prog="scripts/simulate", description="Simulate networks with faults, each from a seed."
    )
    parser.add_argument(
        "--runs",
        type=int,
        metavar="N",
        help=f"number of worlds (default: 500; with --services 50; with --mutants {WORLDS_OF_MUTANTS})",
    )
    parser.add_argument(
        "--first-seed",
        type=int,
        metavar="K",
        help="seed of the first world (default: drawn at random; with --mutants 1)",
    )
    parser.add_argument(
        "--processes", type=int, default=2, metavar="P", help="number of processes (default: 2)"
    )
    parser.add_argument("--kind", choices=KINDS, default="any", help="kind of worlds (default: any)")
    parser.add_argument("--seed", type=int, metavar="N", help="run one world and print its story")
    parser.add_argument("--job", metavar="NAME", help="with --seed: print only the story of this job")
    parser.add_argument(
        "--shrink", action="store_true", help="with --seed: first reduce a failing plan to what it takes"
    )
    parser.add_argument(
        "--mutants", action="store_true", help="break the code on purpose: each mutant must be noticed"
    )
    parser.add_argument(
        "--nodes",
        type=int,
        metavar="N",
        help="print what a job costs in networks of 10, 100, ... and N nodes; --runs is the number of jobs",
    )
    parser.add_argument(
        "--services", action="store_true", help="run whole nodes with their stores: fewer worlds, more code"
    )
    options = parser.parse_args(arguments)
    if options.services and (options.job or options.shrink or options.mutants):
        parser.error("--job, --shrink and --mutants cannot be used with --services")
    return options


def _first_seed(options: Namespace) -> int:
    return int(options.first_seed) if options.first_seed is not None else random_seed()


def _run_crowds(options: Namespace) -> int:
    first, failed = _first_seed(options), False
    print(f"first seed  {first}")  # noqa: T201
    sizes = sorted({10**power for power in range(1, 7) if 10**power < options.nodes} | {options.nodes})
    for nodes in sizes:
        plan = CrowdPlan(seed=first, nodes=nodes, jobs=options.runs or 100)
        for name, variant in variants(plan).items():
            try:
                shown = run(variant)
            except Violation as violation:
                found, lines = [str(violation)], []
            else:
                found, lines = shortcomings(shown, exact=variant == plan), report(shown)
            failed = failed or bool(found)
            lines += [f"  TOO MUCH    {what}" for what in found]
            print("\n".join([f"{nodes} nodes, {name}", *lines]), flush=True)  # noqa: T201
    return 1 if failed else 0


def _run_services(options: Namespace) -> int:
    from tests.simulation.services.campaign import campaign  # imports that machines alone spare
    from tests.simulation.services.run import watch_world

    if options.seed is not None:
        report = watch_world(options.seed)
        print("\n".join(report.story))  # noqa: T201
        return 1 if report.violation else 0
    first = _first_seed(options)
    tally = campaign(first, options.runs or 50, processes=options.processes)
    lines = [
        f"first seed  {first}",
        f"runs        {tally.runs} in {tally.seconds:.0f} s",
        *_what_happened(tally),
        *_violations(tally, "scripts/simulate --services"),
    ]
    print("\n".join(lines))  # noqa: T201
    return 1 if tally.violations else 0


def _show_world(options: Namespace) -> int:
    outcome = World(KINDS[options.kind](options.seed)).run()
    if options.shrink and outcome.violation is not None:
        outcome = World(shrunk(outcome.plan, outcome.violation.promise)).run()
    concerned = [options.job] if options.job else jobs_in(str(outcome.violation or ""), outcome)
    for line in story(outcome, concerned[0] if concerned else None):
        print(line)  # noqa: T201
    return 1 if outcome.violation else 0


def _run_mutants(options: Namespace) -> int:
    missed, first = 0, options.first_seed or 1
    for kind, name in [(kind, name) for kind, mutants in MUTANTS_OF.items() for name in mutants]:
        with mutated(name):
            runs = options.runs or WORLDS_OF_MUTANTS
            tally = campaign(first, runs, kind=kind, processes=1, stop_at_first=True)
        if tally.violations:
            seed, what = tally.violations[0]
            print(f"{name}: seed {seed}: {what[:120]}", flush=True)  # noqa: T201
        else:
            missed += 1
            print(f"{name}: NOT FOUND in {tally.runs} runs", flush=True)  # noqa: T201
    return 1 if missed else 0


def _report(first: int, tally: Tally, kind: str) -> list[str]:
    speed = tally.events / max(tally.seconds, 0.001)
    lines = [
        f"first seed  {first}",
        f"runs        {tally.runs}",
        f"events      {tally.events:,} in {tally.seconds:.0f} s ({speed:,.0f}/s)",
        *_what_happened(tally),
    ]
    rows, states = every_row(), every_state()
    missing = [name for name in rows if not tally.rows[name]]
    unseen = [name for name in states if not tally.states[name]]
    lines.append(f"transitions {len(rows) - len(missing)} of {len(rows)} taken")
    lines += [f"            never: {name}" for name in missing]
    lines.append(f"states      {len(states) - len(unseen)} of {len(states)} reached")
    lines += [f"            never: {name}" for name in unseen]
    return lines + _violations(tally, f"scripts/simulate --kind {kind}")


def _what_happened(tally: Tally) -> list[str]:
    return [
        f"world time  {tally.world_seconds / 3600:,.0f} hours",
        "jobs        " + _counted(tally.ends),
        "faults      " + _counted(tally.struck),
    ]


def _violations(tally: Tally, command: str) -> list[str]:
    shown = [f"            {command} --seed {seed}: {what}" for seed, what in tally.violations[:20]]
    return [f"violations  {len(tally.violations)}", *shown]


def _counted(counter: dict[str, int]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in sorted(counter.items()))


if __name__ == "__main__":
    sys.exit(main())
