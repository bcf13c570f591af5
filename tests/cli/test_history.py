"""`history`: the events of a job as lines."""

from __future__ import annotations

import json
import re
import threading

from bacalhau_p2p.model.api_json import event_to_json
from bacalhau_p2p.model.history import EventKind
from bacalhau_p2p.model.state import JobState

ID = "095be615-a8ad-4c33-8e9c-c7612fbf6c9f"


def test_events_are_lines_with_time_kind_execution_node_and_text(run, fake_node):
    fake_node.add_job(ID)
    place = ("3f2a9c01-77", "12D3KooW7xPqLm4c")
    fake_node.tell(ID, EventKind.SUBMITTED, "submitted; for 1 node", "Pending")
    fake_node.tell(ID, EventKind.RUNNING, "running", "BidAccepted", *place)
    fake_node.tell(ID, EventKind.FAILED, "no such\nimage", "Failed", *place)
    fake_node.tell(ID, EventKind.ENDED, "no such image (attempt 3 of 3)", "Failed")
    fake_node.tell(ID, EventKind.ENDED, "", "Stopped")
    first, *others = run("history", "095be").stdout.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}  Submitted {26}for 1 node", first)
    assert [each[14:] for each in others] == [
        "Running      3f2a9c01 on 7xPqLm4c",
        "Failed       3f2a9c01 on 7xPqLm4c  no such image",
        "Ended                              failed: no such image (attempt 3 of 3)",
        "Ended                              stopped",
    ]


def test_escape_sequences_of_strangers_do_not_reach_the_terminal(run, fake_node):
    fake_node.add_job(ID)
    fake_node.tell(ID, EventKind.DECLINED, "declined; \x1b[2J", "", "", "12D3KooW7xPqLm4c")
    assert "\x1b" not in run("history", ID).stdout


def test_json_is_one_event_a_line(run, fake_node):
    fake_node.add_job(ID)
    events = [fake_node.tell(ID, EventKind.WAITING, text) for text in ("a", "b")]
    lines = run("history", ID, "--output", "json").stdout.splitlines()
    assert [json.loads(line) for line in lines] == [event_to_json(event) for event in events]


def test_follow_goes_on_until_the_job_has_ended(run, fake_node):
    fake_node.add_job(ID)
    fake_node.tell(ID, EventKind.SUBMITTED, "submitted", "Pending")

    def end() -> None:
        fake_node.wait_until(lambda: fake_node.waiting == 1)
        fake_node.tell(ID, EventKind.ENDED, "enough", "Stopped")
        fake_node.set_state(ID, JobState.STOPPED)

    ending = threading.Thread(target=end)
    ending.start()
    lines = run("history", "--follow", ID).stdout.splitlines()
    ending.join()
    assert [line.split()[1] for line in lines] == ["Submitted", "Ended"]
