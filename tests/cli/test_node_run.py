from __future__ import annotations

import pytest

from bacalhau_p2p.cli.node_run import say_what_goes_on
from tests.support.servers.fake_node import INFO


@pytest.mark.parametrize(
    ("running", "patience", "said"),
    [
        (0, 30.0, ""),
        (2, 0.0, ""),
        (1, 30.0, "Stopping: 1 execution may go on for up to 30 s; a second Ctrl-C stops at once\n"),
        (2, 1.5, "Stopping: 2 executions may go on for up to 1.5 s; a second Ctrl-C stops at once\n"),
    ],
)
def test_a_node_that_stops_says_what_it_waits_for(capsys, running, patience, said):
    assert INFO.compute is not None
    say_what_goes_on(INFO.replace(compute=INFO.compute.replace(running_executions=running)), patience)
    assert capsys.readouterr().err == said


def test_a_requester_that_stops_waits_for_nothing(capsys):
    say_what_goes_on(INFO.replace(compute=None), 30.0)
    assert capsys.readouterr().err == ""
