"""Commands that wait go on when their node restarts, and say so once (`node_away`)."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from bacalhau_p2p.cli import node_away
from bacalhau_p2p.model.history import EventKind
from bacalhau_p2p.model.logs import LogPiece, LogStream
from bacalhau_p2p.model.state import JobState
from tests.support.servers.fake_node import FakeNode

ID = "095be615-a8ad-4c33-8e9c-c7612fbf6c9f"


@pytest.fixture
def restart(fake_node, monkeypatch: pytest.MonkeyPatch):
    """Ends the node once it is asked to wait, and starts another once the command has said that it waits."""
    said, say = threading.Event(), node_away.print_line

    def print_line(text: str, *, err: bool = False) -> None:
        say(text, err=err)
        said.set()

    monkeypatch.setattr(node_away, "print_line", print_line)

    def begin(fill: Callable[[FakeNode], None]) -> threading.Thread:
        second = FakeNode(port=fake_node.port, started=False)

        def work() -> None:
            fake_node.wait_until(lambda: fake_node.waiting == 1)
            fake_node.crash()
            assert said.wait(20)
            fill(second)
            second.start()

        thread = threading.Thread(target=work)
        thread.start()
        started.append((thread, second))
        return thread

    started: list[tuple[threading.Thread, FakeNode]] = []
    yield begin
    for thread, second in started:
        thread.join()
        second.crash()


def submitted(node: FakeNode) -> None:
    node.add_job(ID)
    node.tell(ID, EventKind.SUBMITTED, "submitted", "Pending")


def ended(node: FakeNode) -> None:
    submitted(node)
    node.tell(ID, EventKind.ENDED, "enough", "Stopped")
    node.set_state(ID, JobState.STOPPED)


def test_history_goes_on_behind_what_it_has_shown(run, fake_node, restart):
    submitted(fake_node)
    restart(ended)
    result = run("history", "--follow", ID)
    assert [line.split()[1] for line in result.stdout.splitlines()] == ["Submitted", "Ended"]
    assert result.stderr == f"{node_away.NODE_AWAY}\n"


def test_events_of_all_jobs_go_on_behind_what_they_have_shown(run, fake_node, restart):
    def told(node: FakeNode) -> None:
        ended(node)
        threading.Thread(target=refuse, args=(node,)).start()

    def refuse(node: FakeNode) -> None:
        """So that the command ends."""
        node.wait_until(lambda: node.waiting == 1)
        node.raw_response = (500, b"{}")
        node.tell(ID, EventKind.WAITING, "told before it is refused")

    submitted(fake_node)
    restart(told)
    result = run("events")
    assert [line.split()[2] for line in result.stdout.splitlines()] == ["Ended", "Waiting"]
    assert result.stderr.splitlines()[0] == node_away.NODE_AWAY


def test_a_job_that_is_waited_for_is_asked_for_again(run, fake_node, restart, results):
    def completed(node: FakeNode) -> None:
        (job_id,) = fake_node.jobs
        node.add_job(job_id)
        node.complete(job_id, results)

    restart(completed)
    result = run("docker", "run", "busybox")
    assert result.exit_code == 0
    assert result.stderr.splitlines()[:2] == [node_away.NODE_AWAY, "  Completed"]


@pytest.mark.parametrize("command", ["history", "logs"])
def test_a_node_that_never_answered_is_not_waited_for(run, fake_node, command):
    fake_node.crash()
    result = run(command, "--follow", ID)
    assert (result.exit_code, result.stderr[:22]) == (1, "Error: no node listens")


def test_logs_that_break_go_on_where_they_were(run, fake_node):
    fake_node.add_job(ID)
    fake_node.logs[ID] = [
        LogPiece("e-1", LogStream.STDOUT, 0, b"one "),
        LogPiece("e-1", LogStream.STDERR, 0, b"error"),
        LogPiece("e-1", LogStream.STDOUT, 4, b"two"),
    ]
    fake_node.cut_logs_after = [2]
    result = run("logs", "--follow", "--tail", "3", ID[:5])
    assert (result.stdout, result.stderr) == ("one two", "  Pending\nerror")
    assert [path.rpartition("?")[2] for _, path in fake_node.requests if "/logs" in path] == [
        "follow=true&tail=3",
        "follow=true",
    ]
