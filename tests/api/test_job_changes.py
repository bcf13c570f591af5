"""How two jobs differ."""

from __future__ import annotations

from bacalhau_p2p.api.job_changes import MAX_LINES, compared
from bacalhau_p2p.model.parsing import job_from_mapping


def job(**changes: object):
    return job_from_mapping({"Tasks": [{"Engine": {"Type": "noop"}}], **changes})


def test_equal_jobs_have_no_difference():
    assert compared(job(), job(Type="batch")) == ""


def test_lines_that_differ_are_marked():
    lines = compared(job(Count=1), job(Count=3)).splitlines()
    assert ("-Count: 1" in lines, "+Count: 3" in lines) == (True, True)


def test_large_jobs_are_not_compared_line_by_line():
    many = {"Params": {"Image": "x", "Parameters": [str(n) for n in range(MAX_LINES)]}, "Type": "docker"}
    large = job(Tasks=[{"Engine": many}])
    assert compared(job(), large).startswith("(the jobs differ;")
    assert compared(large, large) == ""
