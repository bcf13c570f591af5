"""What the requester's `store` keeps."""

from __future__ import annotations

import json
from contextlib import closing
from itertools import chain
from types import SimpleNamespace

import pytest

from bacalhau_p2p.components.commit_plan import Commit
from bacalhau_p2p.components.storable import storable
from bacalhau_p2p.components.store import PRUNED_AT_ONCE, Retention
from bacalhau_p2p.errors import AmbiguousID, SettingsError, UnknownJob
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import Execution, Job
from bacalhau_p2p.model.history import EventKind, HistoryEvent
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.model.state import ExecutionState, JobState
from bacalhau_p2p.requester.feed import FeedQuery
from bacalhau_p2p.requester.store import (
    EXECUTIONS_AT_ONCE,
    LATEST_JOBS,
    MAX_RECORDS,
    SCAN,
    JobPage,
    JobQuery,
    RequesterStore,
    SubmissionToken,
)
from bacalhau_p2p.runtime.database import connect

S = ExecutionState
JOB = JobID("j-1")


def execution(name: str, state: ExecutionState, **fields: object) -> Execution:
    node = PeerID(f"node-{name}")
    made = {"created": float(ord(name)), "modified": float(ord(name)), **fields}
    return Execution(id=ExecutionID(name), job_id=JOB, node_id=node, state=state, **made)


def job(count: int) -> Job:
    spec = job_from_mapping({"Count": count, "Tasks": [{"Engine": {"Type": "noop"}}]})
    return Job(
        id=JOB, spec=spec, state=JobState.RUNNING, requester_id=PeerID("me"), created=1.0, modified=1.0
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "requester.db"


@pytest.fixture
def store(path):
    with closing(RequesterStore(path)) as store:
        yield store


def test_all_that_is_known_of_an_attempt_is_kept(path):
    kept = [
        execution("a", S.FAILED, slot=1, permanent=True, message="no such image"),
        execution("b", S.LOST, slot=0, drained=True),
        execution("c", S.BID_ACCEPTED, slot=0, outlives_node=True),
        execution("d", S.BID_REJECTED),
    ]
    store = RequesterStore(path)
    store.commit(Commit(records=[job(2), *kept]), delivered=())
    store.close()
    again = RequesterStore(path)
    assert again.executions(JOB) == kept
    assert again.briefs(JOB) == [(each.state, each.node_id, each.slot) for each in kept]
    again.close()


def test_what_an_earlier_version_wrote_is_refused(path):
    db = connect(path)
    db.execute("CREATE TABLE job (id TEXT)")
    db.execute("PRAGMA user_version = 6")
    db.close()
    with pytest.raises(
        SettingsError, match=r"requester\.db was written by an earlier version .*move the file"
    ):
        RequesterStore(path)


@pytest.mark.parametrize("damage", [{"InputBytes": "few"}, {"Permanent": "perhaps"}, {"Turns": 3}])
def test_a_record_that_is_not_what_it_should_be_is_set_aside_and_not_guessed_at(store, damage):
    store.commit(Commit(records=(job(1), execution("a", S.BID_ACCEPTED, slot=0))), delivered=())
    (record,) = store.db.execute("SELECT record FROM execution").fetchone()
    store.db.execute("UPDATE execution SET record = ?", (json.dumps(json.loads(record) | damage),))
    assert store.executions(JOB) == []
    assert store.db.execute("SELECT key FROM quarantine").fetchall() == [('{"number": 1, "id": "a"}',)]


def test_a_list_leaves_out_a_row_that_cannot_be_read(store):
    records = (job(2), execution("a", S.BID_ACCEPTED), execution("b", S.FAILED))
    store.commit(Commit(records=records), delivered=())
    store.db.execute("UPDATE execution SET state = 700 WHERE id = 'a'")
    assert [each.state for each in store.briefs(JOB)] == [S.FAILED]


@pytest.mark.parametrize("damage", ["slot = -1", "state = 700", "record = x'ff'"])
def test_a_row_that_cannot_be_read_is_set_aside_and_its_events_keep_their_ids(store, damage):
    told = event(1)._replace(execution_id=ExecutionID("a"), node_id=PeerID("node-a"))
    store.commit(Commit(records=(job(1), execution("a", S.BID_ACCEPTED)), history=(told,)), delivered=())
    store.db.execute(f"UPDATE execution SET {damage}")
    assert (store.executions(JOB), store.history(JOB)) == ([], [told])


def test_events_name_executions_that_are_stored_and_others(store):
    """A bid that came too late has no record."""
    kept = event(1)._replace(execution_id=ExecutionID("a"), node_id=PeerID("node-a"))
    late = event(2)._replace(execution_id=ExecutionID("z"), node_id=PeerID("node-z"))
    declined = event(3)._replace(execution_id=ExecutionID(""), node_id=PeerID("node-y"))
    of_job = event(5)._replace(execution_id=ExecutionID(""), node_id=PeerID(""))
    other = event(4)._replace(execution_id=ExecutionID("a"), node_id=PeerID("somebody else"))
    told = [kept, late, declined, other, of_job]
    store.commit(Commit(records=(job(1), execution("a", S.BID_ACCEPTED)), history=told), delivered=())
    assert store.history(JOB) == told
    assert [each._replace(place=0) for each in store.feed.step(FeedQuery(), after=0, limit=9).events] == told
    stored = store.db.execute("SELECT execution_id, node FROM event").fetchall()
    assert stored == [(None, None), ("z", "node-z"), (None, "node-y"), ("a", "somebody else"), (None, None)]


def test_the_executions_of_a_job_that_cannot_be_read_do_not_become_those_of_another(store):
    store.commit(Commit(records=(job(1), execution("a", S.BID_ACCEPTED, slot=0))), delivered=())
    store.db.execute("UPDATE job SET record = '{'")
    assert listed(store.jobs(limit=1)) == []
    with pytest.raises(UnknownJob):
        store.job(JOB)
    store.commit(Commit(records=(job(1),)), delivered=())
    assert store.executions(JOB) == []


# --- lists ----------------------------------------------------------------------------------


def named(name: str, state: JobState = JobState.COMPLETED, modified: float = 1.0) -> Job:
    return job(1).replace(id=JobID(name), state=state, modified=modified)


def listed(page: JobPage) -> list[str]:
    return [each.id for each in page.jobs]


@pytest.mark.parametrize(("newest_first", "pages"), [(True, ["ed", "cb", "a"]), (False, ["ab", "cd", "e"])])
def test_pages_follow_each_other_although_jobs_are_deleted_and_submitted_meanwhile(
    store, newest_first, pages
):
    store.commit(Commit(records=[named(name) for name in "abcde"]), delivered=())
    found, after = [], ""
    for number in range(3):
        page = store.jobs(JobQuery(newest_first=newest_first), limit=2, after=after)
        found.append("".join(listed(page)))
        after = page.next_token
        store.db.execute("DELETE FROM job WHERE id = ?", (found[-1][0],))
        if newest_first:
            store.commit(Commit(records=(named(f"new-{number}"),)), delivered=())
    assert (found, after) == (pages, "")


def test_jobs_are_listed_in_any_order_page_by_page(store):
    jobs = [named("c", modified=1.0), named("a", modified=3.0), named("b", modified=3.0)]
    store.commit(Commit(records=jobs), delivered=())

    def pages(**query) -> str:
        found, after = "", ""
        while after or not found:
            page = store.jobs(JobQuery(**query), limit=1, after=after)
            found, after = found + "".join(listed(page)), page.next_token
        return found

    assert pages(order="created_at", newest_first=False) == "cab"
    assert pages(order="modified_at", newest_first=False) == "cab"
    assert pages(order="modified_at") == "bac"
    assert pages(order="id", newest_first=False) == "abc"
    assert pages(order="id") == "cba"


@pytest.mark.parametrize(
    ("order", "token"),
    [
        ("created_at", "a"),
        ("created_at", "1" * 16),
        ("modified_at", "1"),
        ("modified_at", "nan:1"),
        ("id", "\0"),
    ],
)
def test_a_token_of_another_order_is_refused(store, order, token):
    with pytest.raises(ValueError, match="invalid next_token"):
        store.jobs(JobQuery(order=order), limit=1, after=token)


def test_a_search_looks_at_few_jobs_at_a_time_and_says_that_more_follow(store):
    store.commit(Commit(records=[named(f"{n:03}") for n in range(SCAN + 5)]), delivered=())
    wanted = job(1).spec.replace(labels={"a": "b"}, namespace="n")
    store.commit(Commit(records=[named(f"{SCAN:03}").replace(spec=wanted)]), delivered=())
    last = JobQuery(newest_first=False, labelled=lambda labels, space: (labels, space) == ({"a": "b"}, "n"))
    first = store.jobs(last, limit=3)
    assert (listed(first), first.next_token) == ([], str(SCAN))
    assert listed(store.jobs(last, limit=3, after=first.next_token)) == [f"{SCAN:03}"]
    usual = JobQuery(newest_first=False, labelled=lambda labels, space: (labels, space) == ({}, "default"))
    every = store.jobs(usual, limit=2)
    assert (listed(every), every.next_token) == (["000", "001"], "2")
    odd = store.jobs(JobQuery(newest_first=False, matching=lambda job: job.id[-1] in "13"), limit=2)
    assert (listed(odd), odd.next_token) == (["001", "003"], "4")


def test_records_are_those_of_the_jobs_page_by_page(store):
    store.commit(Commit(records=[named(f"{n:03}") for n in range(MAX_RECORDS + 5)]), delivered=())
    query = JobQuery(newest_first=False)
    first = store.job_records(query, limit=1000)
    second = store.job_records(query, limit=1000, after=first.next_token)
    jobs = store.jobs(query, limit=1000).jobs
    assert [*first.jobs, *second.jobs] == [each.model_dump(mode="json", by_alias=True) for each in jobs]
    assert (len(first.jobs), second.next_token) == (MAX_RECORDS, "")


def test_executions_are_read_a_few_at_a_time_oldest_first(store):
    names = [str(9000 - number) for number in range(EXECUTIONS_AT_ONCE + 5)]
    kept = [execution("a", S.COMPLETED, slot=0).replace(id=ExecutionID(name)) for name in names]
    other = kept[0].replace(job_id=JobID("j-2"))
    store.commit(Commit(records=[job(1), named("j-2"), *kept[:9], other, *kept[9:]]), delivered=())
    steps = list(store.execution_steps(JOB))
    assert ([len(step) for step in steps], [*chain(*steps)]) == ([EXECUTIONS_AT_ONCE, 5], kept)
    records = [*chain(*store.execution_record_steps(JOB))]
    assert records == [each.model_dump(mode="json", by_alias=True) for each in kept]
    assert list(store.execution_record_steps(JobID("unknown"))) == []


def test_executions_that_are_deleted_while_they_are_read_do_not_become_those_of_another_job(path):
    with closing(RequesterStore(path, keep_jobs=Retention(count=0))) as store:
        ended = job(1).replace(state=JobState.COMPLETED)
        kept = [
            execution("a", S.COMPLETED).replace(id=ExecutionID(f"{n:03}"))
            for n in range(EXECUTIONS_AT_ONCE + 5)
        ]
        store.commit(Commit(records=[ended, *kept]), delivered=())
        steps = store.execution_steps(JOB)
        assert len(next(steps)) == EXECUTIONS_AT_ONCE
        prune_all(store, now=3.0)
        others = [each.replace(job_id=JobID("j-2")) for each in kept]
        store.commit(Commit(records=[named("j-2"), *others]), delivered=())
        assert list(steps) == [[]]


def test_records_are_chosen_and_refused_like_jobs(store):
    store.commit(Commit(records=[named("a"), named("b", JobState.FAILED)]), delivered=())
    failed = store.job_records(JobQuery(state=JobState.FAILED), limit=9)
    assert [record["ID"] for record in failed.jobs] == ["b"]
    labelled = store.job_records(JobQuery(labelled=lambda labels, space: False), limit=9)
    assert labelled.jobs == []
    with pytest.raises(ValueError, match="invalid next_token"):
        store.job_records(JobQuery(), limit=1, after="a")


def test_a_job_is_found_by_its_name_if_only_one_has_it(store):
    spec = job(1).spec
    jobs = [job(1).replace(id=JobID(i), spec=spec.replace(name=n)) for i, n in (("a1", "x"), ("a2", "a"))]
    store.commit(Commit(records=jobs), delivered=())
    assert (store.resolve("x"), store.resolve("a"), store.resolve("a1")) == ("a1", "a2", "a1")
    store.commit(Commit(records=[jobs[0].replace(id=JobID("a3"))]), delivered=())
    assert store.named("x", most=5) == ["a3", "a1"]
    with pytest.raises(
        AmbiguousID, match="several jobs have the name x, the latest is a3; use the id of one"
    ):
        store.resolve("x")
    assert store.named("\ud800", most=1) == []


def test_a_list_by_prefix_has_the_jobs_with_this_prefix(store):
    store.commit(Commit(records=[named(name) for name in ("ab1", "ab2", "ac1", "b")]), delivered=())
    assert listed(store.jobs(JobQuery(prefix="ab"), limit=9)) == ["ab2", "ab1"]
    assert listed(store.jobs(JobQuery(prefix="a\u0661"), limit=9)) == []


@pytest.mark.parametrize("prefix", ["", "j"])
def test_no_list_and_no_start_reads_all_jobs(store, prefix):
    plans: list[str] = []

    def explain(query, *values):
        plans.extend(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", *values))
        return connection.execute(query, *values)

    connection, store.db = store.db, SimpleNamespace(execute=explain, close=store.db.close)
    store.jobs(JobQuery(prefix=prefix), limit=3)
    store.jobs(JobQuery(prefix=prefix), limit=3, after="7")
    store.jobs(JobQuery(prefix=prefix, order="id"), limit=3, after="j")
    assert store.named("nobody", most=2) == []
    store.unfinished()
    store.executions(JOB)
    store.has_ended(JOB) if store.by_token("t") else None
    whole = [plan for plan in plans if plan.startswith("SCAN") and plan not in ("SCAN job", UNFINISHED)]
    assert whole == []
    assert UNFINISHED in plans


UNFINISHED = "SCAN job USING INDEX job_unfinished"


# --- what is deleted ------------------------------------------------------------------------


def prune_all(store: RequesterStore, now: float) -> None:
    while store.prune(now):
        pass


def test_jobs_are_deleted_some_time_after_they_have_ended_and_others_never(path):
    with closing(RequesterStore(path, keep_jobs=Retention(seconds=100))) as store:
        of_old = execution("a", S.COMPLETED).replace(job_id=JobID("old"))
        running = named("running", JobState.RUNNING)
        jobs = (named("old", modified=50.0), named("recent", modified=90.0), running)
        store.commit(Commit(records=(*jobs, of_old), notes=(SubmissionToken(JobID("old"), "t"),)), ())
        prune_all(store, now=160.0)
        assert listed(store.jobs(limit=9)) == ["running", "recent"]
        assert store.db.execute("SELECT count(*) FROM execution").fetchone() == (0,)
        assert store.by_token("t") is None
        with pytest.raises(UnknownJob):
            store.job(JobID("old"))


def test_the_jobs_that_ended_first_are_deleted_when_there_are_too_many(path):
    with closing(RequesterStore(path, keep_jobs=Retention(count=2))) as store:
        running = [named(f"running-{number}", JobState.RUNNING) for number in range(3)]
        ended = [named("late", modified=9.0), named("first", modified=1.0), named("second", modified=2.0)]
        store.commit(Commit(records=(*running, *ended)), delivered=())
        prune_all(store, now=10.0)
        assert {*listed(store.jobs(limit=9))} == {"late", "second", *(each.id for each in running)}


def test_one_step_of_pruning_deletes_a_few_jobs_and_says_whether_there_are_more(path):
    with closing(RequesterStore(path, keep_jobs=Retention(count=1))) as store:
        many = [named(f"j-{number}", modified=number) for number in range(PRUNED_AT_ONCE + 11)]
        store.commit(Commit(records=many), delivered=())
        assert store.prune(now=1e6)
        assert len(store.jobs(limit=PRUNED_AT_ONCE).jobs) == 11
        assert not store.prune(now=1e6)
        assert listed(store.jobs(limit=9)) == [many[-1].id]


def test_nothing_is_stored_any_more_for_a_job_that_was_deleted(path):
    with closing(RequesterStore(path, keep_jobs=Retention(count=0))) as store:
        store.commit(Commit(records=(named("j-1"),)), delivered=())
        prune_all(store, now=1.0)
        store.commit(Commit(records=(execution("a", S.COMPLETED),)), delivered=())
        assert store.db.execute("SELECT count(*) FROM execution").fetchone() == (0,)


def test_the_file_stops_growing_when_as_many_jobs_are_deleted_as_are_added(path):
    with closing(RequesterStore(path, keep_jobs=Retention(count=300))) as store:
        sizes = []
        for batch in range(12):
            numbers = range(batch * 100, batch * 100 + 100)
            records = [record for n in numbers for record in (named(f"j-{n}", modified=n), *executions_of(n))]
            store.commit(Commit(records=records), delivered=())
            prune_all(store, now=1e6)
            sizes.append(store.db.execute("PRAGMA page_count").fetchone()[0])
        assert max(sizes[6:]) <= max(sizes[:6]) * 1.1


def executions_of(number: int) -> list[Execution]:
    return [execution(name, S.COMPLETED).replace(job_id=JobID(f"j-{number}")) for name in "abc"]


# --- histories ------------------------------------------------------------------------------


def event(number: int, job_id: str = JOB) -> HistoryEvent:
    about = ("BidReceived", ExecutionID("e-1"), PeerID("alice"))
    return HistoryEvent(JobID(job_id), number, 1.5, EventKind.BID, "bids", *about)


def test_a_history_is_read_as_it_was_written_also_after_a_restart(path):
    events = [event(number) for number in range(1, 6)]
    with closing(RequesterStore(path)) as store:
        store.commit(Commit(records=(job(1),), history=events[:3]), delivered=())
        store.commit(Commit(history=events[3:]), delivered=())
    with closing(RequesterStore(path)) as store:
        assert (store.history(JOB), store.told(JOB)) == (events, 5)
        assert store.history(JOB, after=2, limit=2) == events[2:4]
        assert (store.history(JobID("other")), store.told(JobID("other"))) == ([], 0)


def test_a_history_is_deleted_with_its_job_and_then_nothing_is_added_to_it(path):
    with closing(RequesterStore(path, keep_jobs=Retention(count=1))) as store:
        ended = [named("j-1", modified=1.0), named("j-2", modified=2.0)]
        history = [event(1, "j-1"), event(1, "j-2")]
        store.commit(Commit(records=ended, history=history), delivered=())
        prune_all(store, now=3.0)
        store.commit(Commit(history=(event(2, "j-1"),)), delivered=())
        assert store.db.execute("SELECT count(*) FROM event").fetchone() == (1,)
        assert store.history(JobID("j-2")) == [event(1, "j-2")]


def test_a_text_that_cannot_be_stored_costs_its_event_only(path):
    with closing(RequesterStore(path)) as store:
        bad = event(1)._replace(message="\ud800")
        commit, left_out = storable(Commit(records=(job(1),), history=(bad, event(2))), store.rehearse)
        store.commit(commit, delivered=())
        assert [part for part, _ in left_out] == [bad]
        assert store.history(JOB) == [event(2)]


def test_a_job_is_the_same_from_memory_and_from_the_file(path):
    submitted = job(2)
    ended = submitted.replace(state=JobState.COMPLETED, modified=2.0, message="done", revision=3)
    with closing(RequesterStore(path)) as store:
        for record in (submitted, ended):
            store.commit(Commit(records=(record,)), ())
            assert (store.job(JOB), store.has_ended(JOB)) == (record, record is ended)
        assert store.resolve(JOB) == JOB
    with closing(RequesterStore(path)) as store:
        assert (store.job(JOB), store.has_ended(JOB), store.resolve(JOB)) == (ended, True, JOB)


def test_no_job_that_was_deleted_or_not_committed_is_answered_for(path):
    with closing(RequesterStore(path, keep_jobs=Retention(seconds=10.0))) as store:
        with pytest.raises(AttributeError):
            store.commit(Commit(records=(job(1),), outbox=(SimpleNamespace(),)), ())
        with pytest.raises(UnknownJob):
            store.job(JOB)
        store.commit(Commit(records=(job(1).replace(state=JobState.COMPLETED),)), ())
        store.prune(now=100.0)
        with pytest.raises(UnknownJob):
            store.job(JOB)


def test_memory_has_a_few_jobs_and_the_file_has_all(path):
    with closing(RequesterStore(path)) as store:
        records = [job(1).replace(id=JobID(f"j-{number}")) for number in range(LATEST_JOBS + 2)]
        for record in records:
            store.commit(Commit(records=(record,)), ())
        assert len(store._latest) == LATEST_JOBS
        assert [store.job(record.id) for record in records] == records
