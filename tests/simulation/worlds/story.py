"""The story of a world or of one of its jobs: what happened, in order, for people to read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.components.protocol import MessageReceived, TimePassed
from bacalhau_p2p.compute.events import AnnouncementReceived
from bacalhau_p2p.compute.record import ComputeExecution
from bacalhau_p2p.model.execution import Execution, Job
from bacalhau_p2p.requester import events as rv
from tests.simulation.plans.plan import StepFault
from tests.simulation.worlds.world import START, Outcome

_LEFT_OUT = (rv.NodeInfoReceived, TimePassed, say.NodeInfoPublished)
"""Too frequent to be part of a story."""


def story(outcome: Outcome, job: str | None = None) -> Iterator[str]:
    """Line by line. With `job`: only what concerns this job, and starts and stops of nodes."""
    yield str(outcome.plan)
    executions = _executions_of(outcome, job)
    last_heartbeats: dict[str, str | None] = {}
    for note in outcome.notes:
        when, who, what, _, about = note
        words = _words(about)
        if isinstance(about, _LEFT_OUT) or ("heartbeat" in words and words == last_heartbeats.get(who)):
            continue
        last_heartbeats[who] = words if "heartbeat" in words else last_heartbeats.get(who)
        subjects = _subjects(about)
        if job is None or not subjects or any(s in executions or _is_of(s, job) for s in subjects):
            yield f"{when - START:9.3f}  {who:<5} {what:<10} {words}"
    yield f"{outcome.ended:9.3f}  {outcome.violation or 'all is well'}"


def jobs_in(text: str, outcome: Outcome) -> list[str]:
    """The jobs that a violation names, directly or by their executions."""
    return [
        job.name
        for job in outcome.plan.jobs
        if job.name in text.replace(":", " ").split()
        or any(execution in text for execution in _executions_of(outcome, job.name))
    ]


def fingerprint(outcome: Outcome) -> str:
    """Equal for two worlds in which the same happened at the same times."""
    digest = hashlib.sha256()
    for when, who, what, _, about in outcome.notes:
        digest.update(f"{when!r} {who} {what} {_words(about)}\n".encode())
    return digest.hexdigest()


def _executions_of(outcome: Outcome, job: str | None) -> set[str]:
    if job is None:
        return set()
    return {
        about.id
        for *_, about in outcome.notes
        if isinstance(about, Execution | ComputeExecution) and _is_of(about.job_id, job)
    }


def _is_of(subject: str, job: str) -> bool:
    return subject == job or subject.startswith(f"{job}.")


def _subjects(about: Any) -> list[str]:
    """The jobs and executions that a note is about."""
    if isinstance(about, MessageReceived | AnnouncementReceived):
        return _subjects(about.message)
    if isinstance(about, say.Heartbeat | say.Reconcile):
        return [line.execution_id for line in about.executions]
    if isinstance(about, rv.Resumed):
        return [about.job.id]
    if isinstance(about, Job):
        return [about.id]
    record = getattr(about, "execution", about)
    named = (getattr(record, name, None) for name in ("job_id", "execution_id", "id"))
    return [name for name in named if isinstance(name, str)]


def _words(about: Any) -> str:
    match about:
        case MessageReceived(author, message) | AnnouncementReceived(author, message):
            return f"{author}: {_words(message)}"
        case Job():
            return f"{about.id} {about.state}: {about.message}"
        case Execution() | ComputeExecution():
            return f"{about.id} of {about.job_id} {about.state}: {about.message}"
        case say.Heartbeat():
            return "heartbeat " + ", ".join(f"{line.execution_id} {line.state}" for line in about.executions)
        case say.Reconcile():
            return "reconcile " + ", ".join(f"{line.execution_id} {line.state}" for line in about.executions)
        case say.Announcement():
            return f"{about.kind} {about.job_id} round {about.round}"
        case say.Message():
            fields = [
                str(getattr(about, name))
                for name in ("job_id", "execution_id", "reason")
                if getattr(about, name, None)
            ]
            return " ".join([about.kind, *fields])
        case rv.Submitted(job_id, spec):
            return f"submitted {job_id}, {spec.count} x {spec.verifier.type}"
        case rv.Verified(job_id, verdict):
            accepted, rejected = sorted(verdict.accepted), sorted(verdict.rejected)
            return f"verified {job_id}: {accepted} accepted, {rejected} rejected {verdict.reason}"
        case rv.Resumed():
            return f"resumed {about.job.id} {about.job.state} with {len(about.executions)} executions"
        case str() | StepFault():
            return str(about)
    fields = [
        str(getattr(value, "id", value))
        for name in type(about).__dataclass_fields__
        if not isinstance(value := getattr(about, name), bytes)
    ]
    return " ".join([type(about).__name__, *fields])
