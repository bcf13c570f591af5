"""Layer 3: power cuts, on the real stores and SQLite.

A small network of whole nodes does its work while everything that it writes, and everything that it
tells others, goes on a tape. Then the power is cut at a place of the tape, the disks are built as they may be
found afterwards, and our stores open them with the SQLite of the standard library.

`python -m tests.simulation.power.cuts` says what that showed.
"""

from __future__ import annotations

import tempfile
from argparse import ArgumentParser
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import trio

from bacalhau_p2p.bprotocol.codec import Envelope, MessageID
from bacalhau_p2p.bprotocol.messages import Message
from bacalhau_p2p.compute.store import ComputeStore
from bacalhau_p2p.errors import BacalhauError
from bacalhau_p2p.model.base import JobID
from bacalhau_p2p.requester.store import RequesterStore
from bacalhau_p2p.runtime import database
from tests.simulation.checks.violation import Violation, require
from tests.simulation.plans.rng import rng_for
from tests.simulation.power.promises import Acknowledged, Answered, Promise, Sent, takes_effect
from tests.simulation.power.tape import (
    Committed,
    Disk,
    Kind,
    Loss,
    Operation,
    Recorder,
    State,
    Tape,
    state_of,
)
from tests.simulation.power.town import DATABASES, REQUESTER, Town
from tests.simulation.services.world import deterministic

CHECKPOINT = 30
"""Pages after which SQLite copies its log into the database; 1,000 otherwise are never filled here."""


@dataclass(frozen=True, slots=True)
class Told:
    """On the tape: from here on others rely on this."""

    node: str
    promise: Promise
    when: float


@dataclass(slots=True)
class Recording:
    """A day's work on tape."""

    seed: int
    folder: Path
    entries: Sequence[object]

    def database(self, node: str) -> str:
        return str(self.folder / node / DATABASES[node])


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


def record(seed: int, folder: Path) -> Recording:
    """A day's work of a network in `folder`, on tape. Raises Violation: a promise was made too early, or
    a message that is acknowledged had no effect."""
    tape = Tape()
    messages: dict[MessageID, Message] = {}

    def told(node: str, promise: Promise, by: Envelope | None) -> None:
        if by is not None and isinstance(promise, Sent):
            messages[promise.message_id] = by.message
        tape.entries.append(Told(node, promise, trio.current_time()))

    vfs = Recorder(tape, f"recorder-{id(tape)}")
    try:
        with (
            deterministic(seed) as clock,
            mock.patch.object(
                database, "connect", lambda path: tape.connect(vfs, path, checkpoint=CHECKPOINT)
            ),
        ):
            trio.run(Town(folder, seed, told).days_work, clock=clock)
    finally:
        vfs.unregister()
    recording = Recording(seed, folder, tape.entries)
    for node in DATABASES:
        _check_effects(_Books(recording, node), messages)
    return recording


class _Books:
    """One node's commits, and from which of them on each of its promises is kept."""

    def __init__(self, recording: Recording, node: str) -> None:
        self.node = node
        self.states: list[State] = [()]
        self.floors: dict[Promise, int] = {}
        """The first state that keeps the promise."""
        self._committed_at: list[int] = []
        self._told_at: list[int] = []
        self._told_floors: list[int] = []
        path = recording.database(node)
        for place, entry in enumerate(recording.entries):
            if isinstance(entry, Committed) and entry.path == path:
                self.states.append(entry.state)
                self._committed_at.append(place)
            elif isinstance(entry, Told) and entry.node == node and entry.promise not in self.floors:
                self._note(entry.promise, place)
        self._numbers: dict[State, list[int]] = {}
        for number, state in enumerate(self.states):
            self._numbers.setdefault(state, []).append(number)

    def _note(self, promise: Promise, place: int) -> None:
        floor = next((n for n, state in enumerate(self.states) if promise.kept_in(state)), None)
        if floor is None:
            raise Violation("kept before it is told", f"{self.node} has not kept {promise}")
        self.floors[promise] = floor
        self._told_at.append(place)
        self._told_floors.append(max(floor, *self._told_floors[-1:], 0))

    def committed(self, place: int) -> int:
        """Transactions that were over at this place of the tape."""
        return bisect_right(self._committed_at, place)

    def relied_on(self, place: int) -> int:
        """The state behind which this node must not fall from this place on."""
        told = bisect_right(self._told_at, place)
        return self._told_floors[told - 1] if told else 0

    def number(self, state: State, at_most: int) -> int | None:
        """Which of the states so far this is: the latest; None if it never was in it."""
        return next((n for n in reversed(self._numbers.get(state, ())) if n <= at_most), None)


def _check_effects(books: _Books, messages: dict[MessageID, Message]) -> None:
    for promise, floor in books.floors.items():
        if isinstance(promise, Acknowledged) and promise.message_id in messages:
            message = messages[promise.message_id]
            require(
                takes_effect(message, books.states[floor]),
                "what is acknowledged has its effect",
                f"{books.node} counts a {message.kind} as dealt with, of which nothing is to be seen",
            )


def cut(recording: Recording, cuts: int | None, *, resume: int = 0, draw: int = 0) -> Findings:
    """Cut the power so many times, None for every loss at every place of the tape, and let the network go
    on after so many of them.

    Places and losses are drawn from the seed and `draw`. Raises Violation.
    """
    rng = rng_for(recording.seed, f"power {draw}")
    books = [_Books(recording, node) for node in DATABASES]
    disk, findings = Disk(), Findings()
    losses, places = list(Loss), _places(recording)
    if cuts is None:
        drawn = [(place, loss) for place in places for loss in losses]
    else:
        drawn = [(place, rng.choice(losses)) for place in sorted(rng.choices(places, k=cuts))]
    resumed = set(rng.sample(range(len(drawn)), min(resume, len(drawn))))
    done = 0
    for number, (place, loss) in enumerate(drawn):
        for entry in recording.entries[done : place + 1]:
            if isinstance(entry, Operation):
                disk.take(entry)
        done = place + 1
        files = dict(disk.after_cut(loss, rng))
        try:
            _cut_once(recording, books, place, files, findings, resume=number in resumed)
        except (Violation, BacalhauError) as error:
            promise = error.promise if isinstance(error, Violation) else "the store opens"
            where = f"cut {place} of {len(recording.entries)}, {loss.value}"
            raise Violation(promise, f"{where}: {error}") from error
        findings.kinds[loss.value] = findings.kinds.get(loss.value, 0) + 1
    return findings


def _places(recording: Recording) -> list[int]:
    """Where a cut differs from the one before."""
    return [
        place
        for place, entry in enumerate(recording.entries)
        if isinstance(entry, Told) or (isinstance(entry, Operation) and entry.kind is not Kind.CREATE)
    ]


def _cut_once(
    recording: Recording,
    books: Sequence[_Books],
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
        for book in books:
            (folder / book.node).mkdir(exist_ok=True)
            lost.append(_look(book, folder / book.node / DATABASES[book.node], place))
        if resume:
            _go_on(recording, folder, place)
    findings.cuts += 1
    findings.resumed += resume
    findings.lost_something += any(lost)
    findings.most_lost = max(findings.most_lost, *lost)


def _look(books: _Books, path: Path, place: int) -> int:
    """How many of this node's commits are gone. Raises Violation, SettingsError."""
    with closing(RequesterStore(path) if books.node == REQUESTER else ComputeStore(path)) as store:
        found = [row[0] for row in store.db.execute("PRAGMA integrity_check")]
        require(found == ["ok"], "the store is whole", f"{books.node}: {found[:3]}")
        state = state_of(store.db.execute)
        over = books.committed(place)
        number = books.number(state, at_most=over + 1)  # the one under way may be on the disk already
        require(number is not None, "what is lost is the last commits", f"{books.node} is in no known state")
        assert number is not None
        floor = books.relied_on(place)
        if number < floor:
            gone = [str(p) for p, f in books.floors.items() if number < f <= floor and not p.kept_in(state)]
            raise Violation("what was told is kept", f"{books.node} has lost {gone[:3]}")
        store.load_messages(now=0.0)
        if isinstance(store, RequesterStore):
            for job in store.jobs(limit=100).jobs:
                store.executions(job.id)
        else:
            store.active()
            store.ended_since(0.0)
    return max(0, over - number)


def _go_on(recording: Recording, folder: Path, place: int) -> None:
    told = [entry for entry in recording.entries[: place + 1] if isinstance(entry, Told)]
    answered: dict[str, JobID] = {
        entry.promise.token: entry.promise.job_id for entry in told if isinstance(entry.promise, Answered)
    }
    with deterministic(recording.seed) as clock:
        town = Town(folder, recording.seed)
        try:
            trio.run(town.go_on, answered, told[-1].when if told else 0.0, clock=clock)
        except BaseExceptionGroup as group:
            raise next(_violations(group), group) from group


def _violations(group: BaseExceptionGroup[BaseException]) -> Iterator[Violation]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _violations(error)
        elif isinstance(error, Violation):
            yield error


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 if every promise was kept, 1 if one was broken."""
    parser = ArgumentParser(description="Cut the power of a network at many places of its work.")
    parser.add_argument(
        "--cuts", type=int, metavar="N", help="how many, of each seed (every loss at every place)"
    )
    parser.add_argument("--resume", type=int, default=20, metavar="N", help="after how many it goes on (20)")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="different days' work (1)")
    parser.add_argument("--first-seed", type=int, default=1, metavar="K", help="the first one's seed (1)")
    asked = parser.parse_args(arguments)
    for seed in range(asked.first_seed, asked.first_seed + asked.seeds):
        with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
            try:
                recording = record(seed, Path(name) / "work")
                findings = cut(recording, asked.cuts, resume=asked.resume)
            except Violation as violation:
                print(f"seed {seed}: {violation}")  # noqa: T201
                return 1
        print(f"seed {seed}: {len(_places(recording))} places; {findings}")  # noqa: T201
    return 0
