"""The events of all jobs of a requester in one order, for those who watch it as a whole.

Nothing is held for a reader: each page is read from the store, from where the reader is. So one that is slow
costs no memory, and misses nothing but what is deleted with its job meanwhile, which it is told.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Set
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import trio

from bacalhau_p2p.model.base import JobID, UnixSeconds
from bacalhau_p2p.model.history import EventKind, FeedPage, HistoryEvent
from bacalhau_p2p.requester.rows import EVENT_COLUMNS, JOIN_EXECUTION, Rows, labels_of_job

SCAN_EVENTS = 1_000
"""Events that one step looks at when it searches for those that match; about 3 ms."""
MAX_STEPS = 100
"""Steps of one request."""
GATHER = 0.05
"""Seconds that a reader who waits lets pass after something has happened: a busy requester commits hundreds
of times a second."""

_SELECT = f"""
SELECT place, event.job, job.id, {EVENT_COLUMNS}
FROM event JOIN job ON job.number = event.job {JOIN_EXECUTION} WHERE place > ? ORDER BY place LIMIT ?
"""  # noqa: S608 - only literals of this program


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedQuery:
    """Which events are wanted. Empty sets admit all."""

    jobs: Set[JobID] = frozenset()
    kinds: Set[EventKind] = frozenset()
    since: UnixSeconds = 0.0
    labelled: Callable[[Mapping[str, str]], bool] | None = None
    """Whether events of a job with these labels are wanted."""

    def admits(self, event: HistoryEvent) -> bool:
        """Without a look at the labels of the job."""
        return (
            (not self.jobs or event.job_id in self.jobs)
            and (not self.kinds or event.kind in self.kinds)
            and event.time >= self.since
        )


class Feed:
    """Reads the events of all jobs from a requester's database."""

    def __init__(self, db: sqlite3.Connection, rows: Rows) -> None:
        self._db = db
        self._rows = rows

    def step(self, query: FeedQuery, *, after: int, limit: int) -> FeedPage:
        """The next events that match behind the place `after`, among the SCAN_EVENTS that follow it."""
        if after > self.end():
            message = f"there was no event {after} here: all that is known follows"
            return FeedPage([HistoryEvent(JobID(""), 0, self._time(after), EventKind.OMITTED, message)], 0)
        with closing(self._db.execute(_SELECT, (after, SCAN_EVENTS))) as rows:
            found = list(rows)
        events, last, seen = list[HistoryEvent](), after, 0
        wanted: dict[int, bool] = {}
        for place, number_of_job, job_id, *row in found:
            if len(events) == limit:
                break
            last, seen = place, seen + 1
            event = self._rows.event(job_id, *row)
            if query.admits(event) and (
                query.labelled is None or self._is_labelled(number_of_job, query.labelled, wanted)
            ):
                events.append(event._replace(place=place))
        if seen == len(found) < SCAN_EVENTS:
            last = max(last, self.end())
        missing = last - after - seen
        if missing and after:
            message = f"{missing} event{'s' if missing > 1 else ''} after {after} deleted with their jobs"
            omitted = HistoryEvent(JobID(""), 0, self._time(after), EventKind.OMITTED, message, place=after)
            events.insert(0, omitted)
        return FeedPage(events, last)

    def end(self) -> int:
        """The place of the last event that was ever appended."""
        return int(self._one("SELECT seq FROM sqlite_sequence WHERE name = 'event'") or 0)

    def place_at(self, time: UnixSeconds) -> int:
        """The place behind which the events from this time on are, by halving: times of events rise."""
        low, high = 0, self.end()
        while low < high:
            middle = (low + high) // 2
            found = self._one("SELECT time FROM event WHERE place > ? ORDER BY place LIMIT 1", middle)
            if found is not None and found < time:
                low = middle + 1
            else:
                high = middle
        return low

    def _time(self, place: int) -> UnixSeconds:
        """That of the last event up to a place."""
        statement = "SELECT time FROM event WHERE place <= ? ORDER BY place DESC LIMIT 1"
        return self._one(statement, place) or 0.0

    def _is_labelled(
        self, job: int, labelled: Callable[[Mapping[str, str]], bool], known: dict[int, bool]
    ) -> bool:
        if job not in known:
            labels, _ = labels_of_job(self._one("SELECT record FROM job WHERE number = ?", job))
            known[job] = labelled(labels)
        return known[job]

    def _one(self, statement: str, *values: object) -> Any:
        with closing(self._db.execute(statement, values)) as rows:
            found = rows.fetchone()
        return found[0] if found else None


class FeedReader:
    """Reads pages of a feed, and waits for what is not there yet."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._appended = trio.Event()

    def wake(self) -> None:
        """Say that events were appended."""
        if self._appended.statistics().tasks_waiting:
            self._appended.set()
            self._appended = trio.Event()

    async def page(self, query: FeedQuery, *, after: int, limit: int, timeout: float) -> FeedPage:
        """The next events that match behind the place `after`: at most `limit`, and perhaps one that tells
        what is missing. If there is none it waits for one up to `timeout` seconds.

        A page without events whose `last` is beyond `after` says only that those between do not match.
        """
        page = await self._found(query, after, limit)
        with trio.move_on_after(timeout):
            while timeout > 0 and not page.events:
                if page.last >= self._feed.end():
                    await self._appended.wait()
                    await trio.sleep(GATHER)
                page = await self._found(query, page.last, limit)
        return page

    async def _found(self, query: FeedQuery, after: int, limit: int) -> FeedPage:
        """What MAX_STEPS find. Lets others work meanwhile."""
        page = self._feed.step(query, after=after, limit=limit)
        for _ in range(MAX_STEPS):
            if page.events or page.last >= self._feed.end():
                break
            await trio.lowlevel.checkpoint()
            page = self._feed.step(query, after=page.last, limit=limit)
        return page
