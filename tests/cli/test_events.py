"""`events`: what happens to all jobs, as lines."""

from __future__ import annotations

import json
import re
import threading

import pytest

from bacalhau_p2p.model.history import EventKind

A = "095be615-a8ad-4c33-8e9c-c7612fbf6c9f"
B = "17b2d7dd-a8ad-4c33-8e9c-c7612fbf6c9f"


@pytest.fixture(autouse=True)
def _told(fake_node):
    fake_node.add_job(A)
    fake_node.add_job(B)
    fake_node.tell(A, EventKind.SUBMITTED, "submitted; for 1 node", "Pending")
    fake_node.tell(B, EventKind.FAILED, "no such\nimage \x1b[2J", "Failed", "3f2a9c01-77", "12D3KooW7xPqLm4c")


def test_lines_have_the_job_the_time_the_event_and_the_reason(run):
    first, second = run("events", "--no-follow").stdout.splitlines()
    assert re.fullmatch(r"095be615  \d\d:\d\d:\d\d\.\d{3}  Submitted {26}for 1 node", first)
    assert second[:8] == "17b2d7dd"
    assert second.endswith("Failed       3f2a9c01 on 7xPqLm4c  no such image \ufffd[2J")


def test_events_are_chosen_by_job_and_kind(run):
    def jobs(*flags: str) -> list[str]:
        lines = run("events", "-F", "-o", "json", *flags).stdout.splitlines()
        return [json.loads(line)["JobID"] for line in lines]

    assert jobs() == [A, B]
    assert jobs("--job", B) == [B]
    assert jobs("--kind", "Submitted") == [A]
    assert jobs("--kind", "Submitted", "--job", B) == []


@pytest.mark.parametrize("since", ["10m", "1700000000", "2020-01-01T10:00"])
def test_a_time_is_a_duration_a_date_or_unix_seconds(run, since):
    assert run("events", "-F", "--since", since).exit_code == 0


def test_a_time_that_is_none_is_an_error(run):
    result = run("events", "--since", "yesterday")
    assert (result.exit_code, "such as 10m" in result.stderr) == (2, True)


def test_it_begins_with_now_and_goes_on(run, fake_node):
    def end() -> None:
        fake_node.wait_until(lambda: fake_node.waiting == 1)
        fake_node.raw_response = (500, b"{}")  # from then on
        fake_node.tell(A, EventKind.ENDED, "enough", "Stopped")

    ending = threading.Thread(target=end)
    ending.start()
    lines = run("events").stdout.splitlines()
    ending.join()
    assert [line.split()[2] for line in lines] == ["Ended"]
