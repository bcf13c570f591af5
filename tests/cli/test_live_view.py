"""What `live_view` shows of a job that runs."""

from __future__ import annotations

import click
import pytest

from bacalhau_p2p.cli.live_view import MAX_LINES, LiveView
from bacalhau_p2p.model.api_json import event_to_json
from bacalhau_p2p.model.history import EventKind, HistoryEvent

ID = "095be615-a8ad-4c33-8e9c-c7612fbf6c9f"
NODE = "12D3KooW7xPqLm4c"
K = EventKind


def view_of(*events: tuple[EventKind, str, str, str, float], now: float | None = None) -> LiveView:
    """Events are a kind, a message, a state, an execution and a time."""
    view = LiveView(ID)
    for number, (kind, message, state, execution, time) in enumerate(events, start=1):
        node = NODE if execution else ""
        event = HistoryEvent(ID, number, time, kind, message, state, execution, node)
        view.take(event_to_json(event), time if now is None else now)
    return view


def shown(view: LiveView, now: float, *, width: int = 79, height: int = 24) -> list[str]:
    return [click.unstyle(line) for line in view.lines(now, width, height)]


SUBMITTED = (K.SUBMITTED, "submitted", "Pending", "", 100.0)
ACCEPTED = (K.ACCEPTED, "", "BidAccepted", "e-1", 102.0)


def test_before_a_node_is_found_the_bids_are_counted():
    assert shown(LiveView(ID), 100) == ["Job 095be615  Pending  0.0 s  looking for nodes"]
    view = view_of(SUBMITTED, (K.BID, "", "", "e-1", 101.0), (K.BID, "", "", "e-2", 101.0))
    assert shown(view, 103) == ["Job 095be615  Pending  3.0 s  looking for nodes: 2 bids"]


def test_what_a_job_waits_for_is_said():
    view = view_of(SUBMITTED, (K.WAITING, "no node has\nthe label gpu", "", "", 101.0))
    assert shown(view, 112) == ["Job 095be615  Pending  12 s  no node has the label gpu"]


def test_what_a_job_waits_for_is_said_until_a_node_bids():
    """It is told once, however many rounds of bids follow."""
    waits = (SUBMITTED, (K.WAITING, "no engine", "", "", 101.0), (K.ANNOUNCED, "round 2", "", "", 102.0))
    assert shown(view_of(*waits), 112) == ["Job 095be615  Pending  12 s  no engine"]
    view = view_of(*waits, (K.BID, "", "", "e-1", 103.0))
    assert shown(view, 112) == ["Job 095be615  Pending  12 s  looking for nodes: 1 bid"]


def test_an_execution_has_its_node_its_state_and_its_seconds():
    view = view_of(SUBMITTED, ACCEPTED, (K.RUNNING, "", "Running", "", 102.0))
    assert shown(view, 104)[1] == "  e-1 on 7xPqLm4c  Accepted             2.0 s"
    view = view_of(SUBMITTED, ACCEPTED, (K.PREPARING, "fetching 3 MB of 40 MB", "", "e-1", 103.0))
    assert shown(view, 107)[1] == "  e-1 on 7xPqLm4c  Preparing            5.0 s  fetching 3 MB of 40 MB"
    view.wrote("e-1")
    assert shown(view, 112)[1] == "  e-1 on 7xPqLm4c  Running               10 s"


def test_inputs_that_are_fetched_have_a_bar_as_far_as_there_is_room():
    told = [
        (K.PREPARING, f"fetching inputs: {done} MB of 40 MB", "", "e-1", time)
        for done, time in ((4, 103.0), (10, 105.0))
    ]
    view = view_of(SUBMITTED, ACCEPTED, *told)
    start = "  e-1 on 7xPqLm4c  Preparing            5.0 s  "
    amounts = "10.0 MB of 40.0 MB  3.0 MB/s  10 s left"
    assert shown(view, 107, width=130)[1] == f"{start}[{'#' * 6}{'-' * 18}]  {amounts}"
    assert shown(view, 107, width=110)[1] == f"{start}[##--------]  {amounts}"
    assert shown(view, 107, width=90)[1] == start + amounts
    assert shown(view, 107, width=79)[1] == f"{start}10.0 MB of 40.0 MB  3.0 MB/s ..."
    first = view_of(SUBMITTED, ACCEPTED, told[0])
    assert shown(first, 107, width=130)[1] == f"{start}[##{'-' * 22}]  4.0 MB of 40.0 MB"
    view.wrote("e-1")
    assert shown(view, 107, width=130)[1].endswith("Running              5.0 s")


def test_an_execution_that_has_ended_stands_still_with_its_reason():
    view = view_of(SUBMITTED, ACCEPTED, (K.FAILED, "no such image", "Failed", "e-1", 104.0))
    assert shown(view, 500)[1] == "  e-1 on 7xPqLm4c  Failed               2.0 s  no such image"
    assert [click.unstyle(line) for line in view.ended_lines(500, 79)] == shown(view, 500)[1:]


def test_the_state_has_a_colour():
    (_, line) = view_of(SUBMITTED, ACCEPTED, (K.FAILED, "why", "Failed", "e-1", 104.0)).lines(104, 79, 24)
    assert click.style("Failed        ", fg="red") in line


def test_bids_that_were_not_accepted_are_not_shown():
    view = view_of(SUBMITTED, (K.BID_REJECTED, "", "BidRejected", "e-9", 101.0))
    assert len(shown(view, 103)) == 1


@pytest.mark.parametrize(("height", "lines"), [(24, MAX_LINES), (8, 5), (2, 1)])
def test_of_many_executions_those_that_move_are_shown_and_all_are_counted(height, lines):
    accepted = [(K.ACCEPTED, "", "BidAccepted", f"e-{number}", 102.0) for number in range(30)]
    ended = [(K.PUBLISHED, "", "Completed", f"e-{number}", 110.0) for number in range(25)]
    job, *executions, more = shown(view_of(SUBMITTED, *accepted, *ended), 111, height=height)
    assert job.endswith("25 Completed, 5 Accepted")
    assert len(executions) == lines
    assert [line.split()[3] for line in executions[-5:]] == ["Accepted"] * min(lines, 5)
    assert more == f"  and {30 - lines} more"


@pytest.mark.parametrize("width", [10, 40, 79])
def test_no_line_is_longer_than_the_terminal(width):
    long = "word " * 50
    view = view_of(
        SUBMITTED, ACCEPTED, (K.PREPARING, long, "", "e-1", 103.0), (K.WAITING, long, "", "", 104.0)
    )
    assert all(len(line) <= max(width, 23) for line in shown(view, 105, width=width))


def test_what_strangers_write_moves_no_cursor_and_imitates_no_line():
    view = view_of(
        SUBMITTED,
        (K.ACCEPTED, "", "BidAccepted", "e\x1b[2J", 102.0),
        (K.PREPARING, "a\x1b[2J\nb\u202e\x9b", "", "e\x1b[2J", 103.0),
    )
    assert (
        shown(view, 104)[1]
        == "  e\ufffd[2J on 7xPqLm4c  Preparing            2.0 s  a\ufffd[2J b\ufffd\ufffd"
    )


def test_seconds_are_right_although_the_clock_of_the_node_is_wrong():
    view = view_of(SUBMITTED, ACCEPTED, now=5000.0)
    assert shown(view, 5003)[1] == "  e-1 on 7xPqLm4c  Accepted             3.0 s"
