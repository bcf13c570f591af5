"""Cuts the power at places of a recording, and checks what the stores make of the disks.

The disks are built as a power cut may leave them, and our stores open them with the SQLite of the standard
library.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from sqlite3 import DatabaseError

import trio

from bacalhau_p2p.compute.store import ComputeStore
from bacalhau_p2p.errors import BacalhauError
from bacalhau_p2p.model.base import JobID
from bacalhau_p2p.requester.store import RequesterStore
from tests.simulation.checks.violation import Violation, require
from tests.simulation.plans.rng import rng_for
from tests.simulation.power.disk import Disk, Loss
from tests.simulation.power.history import NodeHistory, Promised
from tests.simulation.power.network import DATABASES, REQUESTER, SmallNetwork
from tests.simulation.power.promises import Answered
from tests.simulation.power.recording import Recording
from tests.simulation.power.trace import Kind, Operation, state_of
from tests.simulation.services.deterministic import deterministic


@dataclass(slots=True)
class Findings:
    """What some cuts showed."""

    cuts: int = 0
    resumed: int = 0
    lost_something: int = 0
    """Cuts that undid a commit of some node."""
    most_lost: int = 0
    """Commits that one cut undid at one node."""
    kinds: dict[str, int] = field(default_factory=dict)


def cut(recording: Recording, cuts: int | None, *, resume: int = 0, draw: int = 0) -> Findings:
    """Cut the power so many times, None for every loss at every place of the trace, and start the network
    again after `resume` of them.

    Places and losses are drawn from the seed and `draw`. Raises Violation.
    """
    rng = rng_for(recording.seed, f"power {draw}")
    histories = recording.histories()
    disk, findings = Disk(), Findings()
    losses, everywhere = list(Loss), places(recording)
    if cuts is None:
        drawn = [(place, loss) for place in everywhere for loss in losses]
    else:
        drawn = [(place, rng.choice(losses)) for place in sorted(rng.choices(everywhere, k=cuts))]
    resumed = set(rng.sample(range(len(drawn)), min(resume, len(drawn))))
    done = 0
    for number, (place, loss) in enumerate(drawn):
        for entry in recording.entries[done : place + 1]:
            if isinstance(entry, Operation):
                disk.take(entry)
        done = place + 1
        files = dict(disk.after_cut(loss, rng))
        try:
            _cut_once(recording, histories, place, files, findings, resume=number in resumed)
        except (Violation, BacalhauError) as error:
            promise = error.promise if isinstance(error, Violation) else "the store opens"
            where = f"cut {place} of {len(recording.entries)}, {loss.value}"
            raise Violation(promise, f"{where}: {error}") from error
        findings.kinds[loss.value] = findings.kinds.get(loss.value, 0) + 1
    return findings


def places(recording: Recording) -> list[int]:
    """The places of the trace at which a cut differs from the one before."""
    return [
        place
        for place, entry in enumerate(recording.entries)
        if isinstance(entry, Promised) or (isinstance(entry, Operation) and entry.kind is not Kind.CREATE)
    ]


def _cut_once(
    recording: Recording,
    histories: Sequence[NodeHistory],
    place: int,
    files: dict[str, bytes],
    findings: Findings,
    *,
    resume: bool,
) -> None:
    lost = []
    with tempfile.TemporaryDirectory(dir=recording.folder.parent) as name:
        folder = Path(name)
        for path, content in files.items():
            target = folder / Path(path).relative_to(recording.folder)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(content)
        for history in histories:
            (folder / history.node).mkdir(exist_ok=True)
            lost.append(_check(history, folder / history.node / DATABASES[history.node], place))
        if resume:
            _resume(recording, folder, place)
    findings.cuts += 1
    findings.resumed += resume
    findings.lost_something += any(lost)
    findings.most_lost = max(findings.most_lost, *lost)


def _integrity(store: RequesterStore | ComputeStore) -> list[str]:
    """`ok`, or what is wrong with its file."""
    try:
        return [row[0] for row in store.db.execute("PRAGMA integrity_check")]
    except DatabaseError as error:  # it is worse than the check can tell
        return [str(error)]


def _check(history: NodeHistory, path: Path, place: int) -> int:
    """How many of this node's commits are lost. Raises Violation, SettingsError."""
    with closing(RequesterStore(path) if history.node == REQUESTER else ComputeStore(path)) as store:
        found = _integrity(store)
        require(found == ["ok"], "the store is whole", f"{history.node}: {found[:3]}")
        state = state_of(store.db.execute)
        over = history.commits_before(place)
        number = history.number_of(state, at_most=over + 1)  # the one under way may be on the disk already
        require(
            number is not None, "what is lost is the last commits", f"{history.node} is in no known state"
        )
        assert number is not None
        floor = history.relied_on(place)
        if number < floor:
            gone = [str(p) for p, f in history.floors.items() if number < f <= floor and not p.kept_in(state)]
            raise Violation("promises survive", f"{history.node} has lost {gone[:3]}")
        store.load_messages(now=0.0)
        if isinstance(store, RequesterStore):
            for job in store.jobs(limit=100).jobs:
                store.executions(job.id)
        else:
            store.active()
    return max(0, over - number)


def _resume(recording: Recording, folder: Path, place: int) -> None:
    promised = [entry for entry in recording.entries[: place + 1] if isinstance(entry, Promised)]
    answered: dict[str, JobID] = {
        entry.promise.token: entry.promise.job_id for entry in promised if isinstance(entry.promise, Answered)
    }
    with deterministic(recording.seed) as clock:
        network = SmallNetwork(folder, recording.seed)
        try:
            trio.run(network.resume, answered, promised[-1].when if promised else 0.0, clock=clock)
        except BaseExceptionGroup as group:
            raise next(_violations(group), group) from group


def _violations(group: BaseExceptionGroup[BaseException]) -> Iterator[Violation]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _violations(error)
        elif isinstance(error, Violation):
            yield error
