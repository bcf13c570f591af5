"""How a devstack starts its nodes, and that nothing of it is left when it is interrupted.

Covers `devstack`, `devstack_nodes` and `node_process`; what its nodes do together is in
tests/e2e/test_network.py.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bacalhau_p2p.cli.devstack_nodes import DevStack
from tests.support.networks.forked_commands import COMMAND
from tests.support.waiting import eventually

pytestmark = pytest.mark.network


def children(process: subprocess.Popen[str]) -> list[str]:
    try:
        return Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    except FileNotFoundError:
        return []


@pytest.mark.parametrize("running", [0, 1, 2, 5, 8])
def test_ctrl_c_while_nodes_start_leaves_no_process_and_no_file(tmp_path, running):
    process = subprocess.Popen(
        [COMMAND, "devstack", "--engine", "noop", "--compute-nodes", "8"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    eventually(lambda: list(tmp_path.iterdir()) and len(children(process)) >= running)
    nodes = children(process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert not [pid for pid in nodes if Path(f"/proc/{pid}").exists()]
    assert list(tmp_path.iterdir()) == []


def test_a_node_that_does_not_start_is_named_with_its_reason(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = subprocess.run(
            [COMMAND, "devstack", "--engine", "noop", "--api-port", str(port)],
            env={**os.environ, "TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ran.returncode == 1
    assert ran.stderr.startswith("Error: node requester did not start: ")
    assert str(port) in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_at_a_terminal_it_says_that_the_network_has_ended_with_the_command(monkeypatch, capsys):
    """The command has just said how to get the results of its job."""
    monkeypatch.setattr(DevStack, "api", ("127.0.0.1", 1))
    stack = DevStack({})
    try:
        assert stack.run(["true"]) == 0
        assert capsys.readouterr().err == ""
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        monkeypatch.setenv("TERM", "xterm")
        assert stack.run(["false"]) == 1
        assert capsys.readouterr().err == "The network has ended, and its jobs and results with it.\n"
    finally:
        stack.stop()


def compiled_modules(monkeypatch, cache) -> str:
    """The folder for compiled modules of a node."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    stack = DevStack({})
    try:
        return stack._settings("compute-0")["compiled_modules"]
    finally:
        stack.stop()


def test_all_devstacks_of_a_user_share_a_private_folder_for_compiled_modules(monkeypatch, tmp_path):
    first, second = [compiled_modules(monkeypatch, tmp_path / "cache") for _ in range(2)]
    assert first == second == str(tmp_path / "cache" / "bacalhau-p2p" / "wasm")
    assert Path(first).stat().st_mode & 0o777 == 0o700


def test_a_user_whose_cache_cannot_be_written_has_one_in_each_node(monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("a file")
    assert compiled_modules(monkeypatch, tmp_path / "cache") == ""
