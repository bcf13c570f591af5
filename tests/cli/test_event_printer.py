"""Events in each format of lists."""

from __future__ import annotations

import csv
import json

import pytest
import yaml

from bacalhau_p2p.cli.event_printer import EventPrinter

EVENT = {
    "Position": 9,
    "SeqNum": 2,
    "JobID": "095be615-a8ad-4c33-8e9c-c7612fbf6c9f",
    "ExecutionID": "e-3f2a9c01-8e9c",
    "Kind": "Failed",
    "Time": "2026-11-30T13:04:43.550018Z",
    "Event": {"Message": "no such\nimage, \x1b[2J", "Details": {"NodeID": "12D3KooW7xPqLm4c"}},
}
CELLS = [
    EVENT["JobID"],
    EVENT["Time"],
    "Failed",
    "e-3f2a9c01-8e9c",
    "12D3KooW7xPqLm4c",
    "no such image, \ufffd[2J",
]


@pytest.fixture
def printed(capsys):
    def print_event(output: str, **flags: bool) -> list[str]:
        EventPrinter(output, **flags).show(EVENT)
        return capsys.readouterr().out.splitlines()

    return print_event


def test_csv_has_a_header_and_all_ids_whole(printed):
    assert list(csv.reader(printed("csv"))) == [
        ["JOB", "TIME", "EVENT", "EXECUTION", "NODE", "MESSAGE"],
        CELLS,
    ]
    assert list(csv.reader(printed("csv", hide_header=True))) == [CELLS]


def test_wide_is_the_same_in_columns(printed):
    header, line = printed("wide")
    assert line.split(maxsplit=5) == CELLS
    assert line.index("12D3KooW") == header.index("NODE")


def test_yaml_and_json_are_the_event_of_the_api(printed):
    assert yaml.safe_load("\n".join(printed("yaml"))) == [EVENT]
    (line,) = printed("json")
    assert json.loads(line) == EVENT


def test_an_id_is_the_number_in_the_job_or_the_place_among_all(printed):
    assert (printed("id"), printed("id", of_all=True)) == (["2"], ["9"])


def test_only_entries_of_all_jobs_name_the_job(printed):
    (of_job,), (of_all,) = printed("table"), printed("table", of_all=True)
    assert of_all == f"095be615  {of_job}"
    assert of_job.endswith("Failed       e-3f2a9c on 7xPqLm4c  no such image, \ufffd[2J")
