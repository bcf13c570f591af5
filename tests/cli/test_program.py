"""The program as a whole: start-up, flags of all commands, errors, and `id` and `version` (`cli.agent`).

Also covers `cli.root`, `cli.job_group`, `cli.lazy_group` and `cli.options`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bacalhau_p2p import __version__
from bacalhau_p2p.cli.job_group import job
from bacalhau_p2p.cli.root import cli
from bacalhau_p2p.model.state import JobState
from tests.support.servers.fake_node import NODE

PROGRAM = [sys.executable, "-c", "from bacalhau_p2p.cli import main; main()"]
HEAVY = {"libp2p", "fastapi", "docker", "wasmtime", "httpx", "trio", "pydantic"}


def loaded_by(code: str, env: dict[str, str] | None = None) -> set[str]:
    """The packages that a program has imported when it ends well."""
    script = f"import sys, atexit\natexit.register(lambda: print('LOADED', *sys.modules))\n{code}"
    environment = {**os.environ, **(env or {})}
    program = [sys.executable, "-c", script]
    output = subprocess.run(program, env=environment, capture_output=True, text=True, check=True).stdout
    loaded = output.splitlines()[-1].split()
    assert loaded[0] == "LOADED"
    return {name.partition(".")[0] for name in loaded}


def command(*arguments: str) -> str:
    return f"sys.argv = {['bacalhau-p2p', *arguments]!r}\nfrom bacalhau_p2p.cli import main\nmain()"


def test_the_command_line_imports_nothing_heavy():
    assert not HEAVY & loaded_by("import bacalhau_p2p.cli, bacalhau_p2p.cli.root")
    assert not (HEAVY | {"http", "yaml"}) & loaded_by(command("version"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("list",),
        ("describe", "abc", "--output", "json"),
        ("docker", "run", "--no-wait", "busybox"),
        ("--help",),
        ("cid", __file__),
    ],
)
def test_commands_that_talk_http_import_nothing_heavy(fake_node, arguments):
    fake_node.add_job("abcdef")
    env = {"BACALHAU_P2P_API_HOST": "127.0.0.1", "BACALHAU_P2P_API_PORT": str(fake_node.port)}
    assert not HEAVY & loaded_by(command(*arguments), env)


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (("serve", "--nope"), HEAVY),
        (("serve", "--api-port", "x"), HEAVY),
        (("serve", "--help"), HEAVY),
        (("devstack", "--compute-nodes", "0"), HEAVY),
        (("serve", "--max-requester-share", "7"), HEAVY - {"pydantic"}),
        (("serve", "--peer", "x"), HEAVY - {"pydantic"}),
        (("serve", "--limit-total-cpu", "x"), HEAVY - {"pydantic"}),
    ],
)
def test_wrong_flags_of_a_node_are_reported_before_a_node_is_imported(arguments, missing):
    lines = f"try:\n{command(*arguments)}".replace("\n", "\n ")
    assert not missing & loaded_by(f"import sys\n{lines}\nexcept SystemExit: pass")


def test_version_is_that_of_the_package(run):
    assert run("version").stdout == f"bacalhau-p2p v{__version__}\n"
    assert run("version", "--server").stdout == f"bacalhau-p2p v{__version__}\nnode v9.9.9\n"


def test_id_prints_the_id_of_the_node(run):
    assert run("id").stdout == f"{NODE}\n"


def test_add_and_cid_print_the_same_cid(run, fake_node, results):
    added = run("add", str(results))
    assert added.exit_code == 0
    assert added.stdout == run("cid", str(results)).stdout
    assert added.stdout.strip() in map(str, fake_node.blocks)


def test_the_cid_of_a_known_file_is_right(run, tmp_path):
    (tmp_path / "hello").write_bytes(b"hello\n")
    assert run("cid", "hello").stdout == "bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am\n"


def test_the_address_may_come_before_or_after_the_command(run, fake_node, monkeypatch):
    monkeypatch.setenv("BACALHAU_P2P_API_PORT", "1")
    port = str(fake_node.port)
    assert run("--api-port", port, "list").exit_code == 0
    assert run("--api-port", "1", "list", "--api-port", port, "--api-host", "127.0.0.1").exit_code == 0
    assert run("list").exit_code == 1
    monkeypatch.setenv("BACALHAU_P2P_API_PORT", "http")
    assert run("list").exit_code == 2


def test_a_node_that_cannot_be_reached_is_an_error_with_its_address(run):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = str(unused.getsockname()[1])
        result = run("list", "--api-port", port)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"Error: no node listens at http://127.0.0.1:{port}: start one with `bacalhau-p2p serve`, "
        "or name another with --api-host and --api-port\n"
    )
    assert run("list", "--api-host", "no such host").stderr.startswith("Error: invalid host 'no such host'")
    assert run("list", "--api-host", "no-such-host.invalid").exit_code == 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((200, b"<html>"), "Error: no bacalhau_p2p node at"),
        ((503, b"down"), "the node answered with HTTP status 503"),
        ((401, b'{"Message": "a token is needed", "Kind": "ApiError"}'), "Error: a token is needed"),
        ((200, b"{}"), "Error: unexpected response from the node at"),
    ],
)
def test_a_malformed_response_is_an_error_of_one_line(run, fake_node, answer, expected):
    fake_node.raw_response = answer
    result = run("id")
    assert result.exit_code == 1
    assert expected in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_token_in_the_environment_is_sent(run, fake_node, monkeypatch):
    monkeypatch.setenv("BACALHAU_P2P_API_TOKEN", "secret")
    run("id")
    assert fake_node.authorizations == ["Bearer secret"]


def test_a_submission_whose_response_is_lost_makes_one_job(run, fake_node):
    fake_node.lose_responses = 2
    assert run("docker", "run", "--no-wait", "busybox").exit_code == 0
    assert len(fake_node.jobs) == 1


def test_ctrl_c_while_waiting_says_that_the_job_continues(fake_node):
    program = subprocess.Popen(
        [*PROGRAM, "--api-port", str(fake_node.port), "docker", "run", "busybox"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    fake_node.wait_until(lambda: fake_node.waiting == 1)
    program.send_signal(signal.SIGINT)
    stdout, stderr = program.communicate(timeout=20)
    assert program.returncode == 130
    assert stdout == "00000000-0000-4000-8000-000000000000\n"
    assert stderr.splitlines()[-1] == "Job 00000000 continues; to stop it: bacalhau-p2p stop 00000000"
    assert "Traceback" not in stderr


def test_changes_of_state_are_printed_as_they_happen(run, fake_node, results):
    def runs_and_ends(job) -> None:
        def end() -> None:
            fake_node.wait_until(lambda: fake_node.waited >= 1)
            fake_node.complete(job.id, results)

        fake_node.set_state(job.id, JobState.RUNNING)
        threading.Thread(target=end).start()

    fake_node.on_submit = runs_and_ends
    result = run("docker", "run", "busybox")
    assert result.stderr.splitlines()[:2] == ["  Running", "  Completed"]


def test_a_file_that_cannot_be_written_is_an_error_of_one_line(run, fake_node, results, tmp_path):
    fake_node.add_job("abcdef")
    fake_node.complete("abcdef", results)
    (tmp_path / "file").write_text("")
    result = run("get", "abc", "--output-dir", "file/below")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1


def test_the_list_of_commands_has_the_help_of_each_command():
    for group in (cli, job):
        for name, (_, help_) in group.lazy.items():
            loaded = group.get_command(None, name)
            assert loaded is not None
            assert loaded.get_short_help_str(200).startswith(help_.removesuffix(".")), name


def test_every_command_of_jobs_is_there_without_the_group():
    for name, lazy in job.lazy.items():
        short = "create" if name == "run" else name
        assert cli.lazy[short] == lazy


def test_the_version_is_a_flag_too(run):
    assert run("--version").stdout == f"bacalhau-p2p v{__version__}\n"


def test_the_agent_is_the_node_that_commands_talk_to(run):
    assert run("agent", "alive").stdout == "Status: OK\n"
    assert json.loads(run("agent", "alive", "-o", "json").stdout) == {"Status": "OK"}
    ours, both = (json.loads(run("version", *flags, "-o", "json").stdout) for flags in ((), ("--server",)))
    assert ours == {"clientVersion": {"GitVersion": f"v{__version__}"}}
    assert both == {**ours, "serverVersion": {"GitVersion": "v9.9.9"}}
    assert json.loads(run("agent", "node", "-o", "json").stdout)["NodeID"] == NODE
    assert run("agent", "version").stdout == "GitVersion: v9.9.9\n"


def test_the_program_is_installed():
    assert (Path(sys.executable).parent / "bacalhau-p2p").exists()
