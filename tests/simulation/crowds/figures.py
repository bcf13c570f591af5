"""What the jobs of a large network cost, and how soon they are placed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import mean, median

from bacalhau_p2p.bprotocol.messages import Ack, Announcement, Bid, BidAccepted, Message


@dataclass(slots=True)
class JobFigures:
    """One job. Times are those of the world."""

    count: int
    announced_at: float
    round: int = 1
    first_bid_at: float | None = None
    accepted: int = 0
    placed_at: float | None = None
    placed_in: int | None = None
    """The round in which each slot was filled for the first time."""
    messages: Counter[str] = field(default_factory=Counter)
    """Direct messages about it by kind, repeats included and acknowledgements not."""


class Figures:
    """Told of everything that is sent."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        """`counts` is how many executions each job wants, by its name."""
        self._counts = counts
        self.jobs: dict[str, JobFigures] = {}
        self.direct_bytes = self.broadcast_bytes = 0
        self.broadcasts = self.receptions = 0
        """How often some node received a broadcast, for the first time, and in all."""
        self.acks = 0

    def announced(self, message: Announcement, now: float) -> None:
        name, _, _ = message.job_id.partition(".")
        job = self.jobs.setdefault(message.job_id, JobFigures(self._counts[name], now))
        job.round = max(job.round, message.round)

    def sent(self, message: Message, size: int, now: float) -> None:
        self.direct_bytes += size
        self.acks += isinstance(message, Ack)
        job = self.jobs.get(getattr(message, "job_id", ""))
        if job is None:
            return
        job.messages[message.kind] += 1
        if isinstance(message, BidAccepted) and job.placed_at is None:
            job.accepted += 1
            if job.accepted == job.count:
                job.placed_at, job.placed_in = now, job.round

    def received(self, message: Message, now: float) -> None:
        job = self.jobs.get(getattr(message, "job_id", "")) if isinstance(message, Bid) else None
        if job is not None and job.first_bid_at is None:
            job.first_bid_at = now

    def spread(self, *, reached: int, hops: int, size: int) -> None:
        """A broadcast reached so many nodes, over so many hops."""
        self.broadcasts += reached
        self.receptions += hops
        self.broadcast_bytes += hops * size


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What one world showed. A mean unless the name says otherwise."""

    jobs: int
    completed: int
    nodes: int
    messages: dict[int, tuple[float, int]]
    """Direct messages a job by `Count`: mean and most."""
    acks: float
    broadcasts: float
    """Received by a node for each job, the first time."""
    receptions: float
    """The same with those that it had already."""
    kilobytes: float
    """That a node receives for each job."""
    rounds: dict[int, int]
    """Jobs by the round that placed them; 0: never."""
    first_bid: float
    """Seconds, the median."""
    placed: float
    """Seconds, the median."""

    @property
    def placed_in_two(self) -> float:
        """The share of jobs that were placed in the first two rounds."""
        return sum(number for rounds, number in self.rounds.items() if rounds in (1, 2)) / self.jobs


def shortcomings(shown: Summary, *, exact: bool) -> list[str]:
    """Where the network costs more than it may, or places jobs later. `exact`: its requesters know it, and
    nothing goes wrong in it."""
    found = []
    if shown.placed_in_two < 0.99:
        found.append(f"only {shown.placed_in_two:.1%} of the jobs were placed in the first two rounds")
    if shown.completed < shown.jobs:
        found.append(f"{shown.jobs - shown.completed} of {shown.jobs} jobs were not completed")
    for count, (average, _) in shown.messages.items() if exact else ():
        if average > message_limit(count):
            found.append(
                f"a job of {count} executions took {average:.1f} messages, more than {message_limit(count)}"
            )
    return found


def report(shown: Summary) -> list[str]:
    """For people to read."""
    messages = "; ".join(
        f"Count {count}: {average:.1f}, at most {most} (limit {message_limit(count)})"
        for count, (average, most) in shown.messages.items()
    )
    rounds = ", ".join(f"round {number or 'none'}: {jobs}" for number, jobs in shown.rounds.items())
    return [
        f"  jobs        {shown.completed} of {shown.jobs} completed",
        f"  messages    {messages}; and {shown.acks:.1f} acknowledgements",
        f"  broadcasts  {shown.broadcasts:.2f} a node and job, {shown.receptions:.1f} with repeats; "
        f"{shown.kilobytes:.1f} kB, direct messages included",
        f"  placed      {shown.placed_in_two:.1%} in the first two rounds ({rounds})",
        f"  medians     first bid after {shown.first_bid * 1000:.0f} ms, "
        f"placed after {shown.placed * 1000:.0f} ms",
    ]


def message_limit(count: int) -> int:
    """Direct messages that a job of so many executions may cost, however many nodes there are."""
    return 6 * count + 30


def summary(figures: Figures, *, nodes: int, completed: int) -> Summary:
    """Raises StatisticsError when no job got a bid."""
    jobs = list(figures.jobs.values())
    sums = {
        count: [job.messages.total() for job in jobs if job.count == count]
        for count in sorted({job.count for job in jobs})
    }
    share = nodes * len(jobs)
    return Summary(
        jobs=len(jobs),
        completed=completed,
        nodes=nodes,
        messages={count: (mean(each), max(each)) for count, each in sums.items()},
        acks=figures.acks / len(jobs),
        broadcasts=figures.broadcasts / share,
        receptions=figures.receptions / share,
        kilobytes=(figures.broadcast_bytes + figures.direct_bytes) / share / 1000,
        rounds=dict(sorted(Counter(job.placed_in or 0 for job in jobs).items())),
        first_bid=median(j.first_bid_at - j.announced_at for j in jobs if j.first_bid_at is not None),
        placed=median(j.placed_at - j.announced_at for j in jobs if j.placed_at is not None),
    )
