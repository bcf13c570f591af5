"""The figures of a run, and whether it passed."""

from __future__ import annotations

from collections import Counter
from typing import Any

from faults import FaultInjector
from load import Users

from bacalhau_p2p.model.state import JobState

MUST_BE_EMPTY = (
    "wrong results",
    "lost",
    "submitted twice",
    "hung",
    "left-over containers",
    "left-over folders",
    "left-over mounts",
    "reservations",
    "unproxied connections",
    "left over after the end",
)
"""Figures that list what went wrong."""


def passed(figures: dict[str, Any]) -> bool:
    """Whether no job was lost, hung or wrong, and nothing is left over."""
    everything = figures["submitted"] == figures["answered"] == figures["terminal"]
    return everything and not any(figures[name] for name in MUST_BE_EMPTY)


def show(figures: dict[str, Any]) -> None:
    for name, value in figures.items():
        if isinstance(value, list):
            print(f"{name:<24} {len(value)}")
            for line in value:
                print(f"    {line}")
        elif isinstance(value, dict):
            print(f"{name:<24} " + ", ".join(f"{key} {count}" for key, count in value.items()))
        else:
            print(f"{name:<24} {value}")


def figures_of(users: Users, injector: FaultInjector, known: set[str]) -> dict[str, Any]:
    """Of the jobs and the faults. `known` are the ids of all jobs that the requester has in the end."""
    submissions = users.submissions
    ended = [s for s in submissions if s.job is not None]
    states = Counter(str(s.job.state) for s in ended if s.job is not None)
    answered = {s.job_id for s in submissions if s.job_id}
    return {
        "submitted": len(submissions),
        "by engine": dict(Counter(s.kind for s in submissions)),
        "answered": sum(bool(s.job_id) for s in submissions),
        "submits repeated": sum(s.repeats for s in submissions),
        "terminal": len(ended),
        "states": dict(states),
        "reasons": [f"{s.token}: {s.job.message}" for s in ended if s.job and s.job.state is JobState.FAILED],
        "executions": sum(s.executions for s in submissions),
        "results fetched": sum(s.fetched for s in submissions),
        "results correct": sum(s.fetched and not s.mismatch for s in submissions),
        "wrong results": [f"{s.token}: {s.mismatch}" for s in submissions if s.mismatch],
        "lost": [f"{s.token}: {s.lost}" for s in submissions if s.lost] + sorted(answered - known),
        "submitted twice": sorted(known - answered),
        "hung": [f"{s.token} {s.job_id}" for s in submissions if s.job is None and not s.lost],
        "kills": injector.kills,
        "killed": dict(sorted(injector.killed.items())),
        "faults": dict(sorted(injector.faults.items())),
    }
