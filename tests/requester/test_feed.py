"""The `feed` of a requester: the events of all jobs in one order, and what is missing of them."""

from __future__ import annotations

from contextlib import closing

import pytest
import trio

from bacalhau_p2p.components.commit_plan import Commit
from bacalhau_p2p.components.store import Retention
from bacalhau_p2p.model.base import JobID, PeerID
from bacalhau_p2p.model.execution import Job
from bacalhau_p2p.model.history import EventKind, FeedPage, HistoryEvent
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.model.state import JobState
from bacalhau_p2p.requester import feed
from bacalhau_p2p.requester.feed import FeedQuery, FeedReader
from bacalhau_p2p.requester.store import RequesterStore

ALL = FeedQuery()


def job(name: str, *, ended: float = 0, **labels: str) -> Job:
    spec = job_from_mapping({"Labels": labels, "Tasks": [{"Engine": {"Type": "noop"}}]})
    state = JobState.COMPLETED if ended else JobState.RUNNING
    made = {"requester_id": PeerID("me"), "created": 1.0, "modified": ended or 1.0}
    return Job(id=JobID(name), spec=spec, state=state, **made)


def event(name: str, number: int, kind: EventKind = EventKind.BID, time: float = 0) -> HistoryEvent:
    return HistoryEvent(JobID(name), number, time or float(number), kind, f"text {number}")


def tell(store: RequesterStore, *events: HistoryEvent, jobs: tuple[Job, ...] = ()) -> None:
    store.commit(Commit(records=jobs, history=events), delivered=())


def named(page: FeedPage) -> list[tuple[str, int, int]]:
    return [(event.job_id, event.number, event.place) for event in page.events]


@pytest.fixture
def store(tmp_path):
    with closing(RequesterStore(tmp_path / "requester.db", keep_jobs=Retention(count=1))) as store:
        yield store


def test_events_of_all_jobs_come_in_the_order_in_which_they_were_committed(store):
    tell(store, event("a", 1), event("b", 1), jobs=(job("a"), job("b")))
    tell(store, event("a", 2))
    page = store.feed.step(ALL, after=0, limit=10)
    assert (named(page), page.last) == ([("a", 1, 1), ("b", 1, 2), ("a", 2, 3)], 3)
    first = store.feed.step(ALL, after=0, limit=2)
    assert (named(first), first.last) == ([("a", 1, 1), ("b", 1, 2)], 2)
    assert named(store.feed.step(ALL, after=2, limit=2)) == [("a", 2, 3)]


def test_the_history_of_a_job_knows_no_places(store):
    tell(store, event("a", 1), jobs=(job("a"),))
    assert store.history(JobID("a")) == [event("a", 1)]


@pytest.mark.parametrize(
    ("query", "places"),
    [
        (FeedQuery(jobs={JobID("b")}), [2]),
        (FeedQuery(kinds={EventKind.ENDED}), [3]),
        (FeedQuery(labelled=lambda labels: labels.get("team") == "x"), [1, 3]),
        (FeedQuery(since=2.0), [3]),
        (FeedQuery(jobs={JobID("b")}, kinds={EventKind.ENDED}), []),
    ],
)
def test_others_are_left_out_and_passed_over(store, query, places):
    tell(store, event("a", 1), event("b", 1), jobs=(job("a", team="x"), job("b")))
    tell(store, event("a", 2, EventKind.ENDED))
    page = store.feed.step(query, after=0, limit=10)
    assert ([event.place for event in page.events], page.last) == (places, 3)


def test_what_was_deleted_is_told_where_it_is_missing(store):
    tell(store, event("a", 1), event("b", 1), event("a", 2), jobs=(job("a", ended=2), job("b", ended=3)))
    store.prune(4.0)
    page = store.feed.step(ALL, after=1, limit=10)
    assert [(e.kind, e.message) for e in page.events[:1]] == [
        (EventKind.OMITTED, "1 event after 1 deleted with their jobs")
    ]
    assert (named(page)[1:], page.last) == ([("b", 1, 2)], 3)
    assert [e.kind for e in store.feed.step(ALL, after=2, limit=10).events] == [EventKind.OMITTED]
    assert store.feed.step(ALL, after=3, limit=10) == FeedPage([], 3)


def test_who_begins_at_the_beginning_misses_nothing(store):
    tell(store, event("a", 1), event("b", 1), jobs=(job("a", ended=2), job("b", ended=3)))
    store.prune(4.0)
    assert named(store.feed.step(ALL, after=0, limit=10)) == [("b", 1, 2)]


def test_no_place_is_given_twice_even_if_the_last_events_were_deleted(tmp_path):
    path = tmp_path / "requester.db"
    with closing(RequesterStore(path, keep_jobs=Retention(count=0))) as store:
        tell(store, event("a", 1), event("a", 2), jobs=(job("a", ended=2),))
        store.prune(3.0)
    with closing(RequesterStore(path)) as store:
        tell(store, event("b", 1), jobs=(job("b"),))
        assert [event.place for event in store.feed.step(ALL, after=2, limit=10).events] == [3]


def test_a_place_of_another_database_begins_anew(store):
    tell(store, event("a", 1), jobs=(job("a"),))
    page = store.feed.step(ALL, after=700, limit=10)
    assert ([e.kind for e in page.events], page.last) == ([EventKind.OMITTED], 0)


def test_a_time_has_its_place(store):
    assert store.feed.place_at(5.0) == 0
    tell(store, *(event("a", number, time=10.0 * number) for number in range(1, 6)), jobs=(job("a"),))
    assert [store.feed.place_at(time) for time in (0.0, 10.0, 10.1, 35.0, 50.0, 51.0)] == [0, 0, 1, 3, 4, 5]


async def test_a_reader_waits_for_what_it_wants_and_is_told_how_far_it_has_come(store, autojump_clock):
    reader = FeedReader(store.feed)
    tell(store, event("a", 1), jobs=(job("a"), job("b")))
    assert await reader.page(ALL, after=1, limit=10, timeout=5) == FeedPage([], 1)
    async with trio.open_nursery() as nursery:

        async def happen() -> None:
            await trio.testing.wait_all_tasks_blocked()
            tell(store, event("a", 2))
            reader.wake()
            await trio.testing.wait_all_tasks_blocked()
            tell(store, event("b", 1))
            reader.wake()

        nursery.start_soon(happen)
        page = await reader.page(FeedQuery(jobs={JobID("b")}), after=1, limit=10, timeout=60)
    assert (named(page), page.last) == ([("b", 1, 3)], 3)


async def test_a_search_looks_at_few_events_at_a_time_and_lets_others_work(store, monkeypatch):
    monkeypatch.setattr(feed, "SCAN_EVENTS", 3)
    monkeypatch.setattr(feed, "MAX_STEPS", 2)
    tell(store, *(event("a", number) for number in range(1, 21)), jobs=(job("a"),))
    tell(store, event("a", 21, EventKind.ENDED))
    wanted = FeedQuery(kinds={EventKind.ENDED})
    first = await FeedReader(store.feed).page(wanted, after=0, limit=10, timeout=0)
    assert first == FeedPage([], 9)
    waiting = await FeedReader(store.feed).page(wanted, after=0, limit=10, timeout=60)
    assert [event.place for event in waiting.events] == [21]
