"""Real processes over libp2p: what a user does, and what happens when nodes lie, crash or are stopped.

Covers `cli.devstack`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.networks.forked_commands import COMMAND
from tests.support.networks.networks import (
    FALSE_ROOT,
    LIAR,
    REPOSITORY,
    Network,
    Node,
    devstack,
    network_of,
)
from tests.support.programs.wasm_programs import PROBE
from tests.support.waiting import eventually

pytestmark = pytest.mark.network

TEXTS = REPOSITORY / "examples" / "wordcount" / "texts"
WORDCOUNT = REPOSITORY / "examples" / "wordcount" / "wordcount.wasm"


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    """A requester and three compute nodes that run no-op and WebAssembly jobs."""
    with devstack("--engine", "noop", "--engine", "wasm") as (network, _):
        yield network


# --- what a user does ---------------------------------------------------------------------


def test_three_nodes_count_words_and_agree_with_python(network, tmp_path):
    ran = network.cli(
        *("wasm", "run", "--id-only", "--wait", "--count", "3"),
        *("--verifier", "deterministic", "--confidence", "2"),
        *("-i", f"{TEXTS}:/inputs", "-o", "outputs:/outputs", WORDCOUNT, "--", "-n", "3", "/inputs"),
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    job_id = ran.stdout.strip()
    listed = network.cli("list", "--id-filter", job_id).stdout
    assert re.search(
        rf"{job_id[:8]} +Completed .* 3/3 +Wasm wordcount.wasm.* ipfs://bafy\w{{55}}$", listed, re.M
    )
    fetched = network.cli("get", job_id[:8], cwd=tmp_path)
    assert fetched.stdout.startswith(f"Fetching results of job '{job_id[:8]}'...\n")
    stdout = (tmp_path / f"job-{job_id[:8]}" / "stdout").read_text()
    books = b"\n".join(path.read_bytes() for path in TEXTS.iterdir())
    the = len(re.findall(rb"\bthe\b(?!')", books.lower()))
    total = sum(len(path.read_bytes()) for path in TEXTS.iterdir())
    assert re.search(rf"^ +\d+ +\d+ +{total}  total$", stdout, re.MULTILINE)
    assert f"{the:>10}  the\n" in stdout


@pytest.mark.docker
def test_a_docker_session_works_as_with_bacalhau(docker_client, tmp_path):
    with devstack("--engine", "docker", "--compute-nodes", "1") as (network, _):
        hello = 'uname -a && echo "Hello from Bacalhau!"'
        ran = network.cli("docker", "run", "--id-only", "--wait", "busybox:latest", "--", "sh", "-c", hello)
        job_id = ran.stdout.strip()
        assert (ran.returncode, ran.stderr) == (0, "")
        header, row = network.cli("list", "--id-filter", job_id).stdout.splitlines()
        columns = ["CREATED", "ID", "NAME", "STATE", "TIME", "NODES", "VERIFIED", "JOB", "PUBLISHED"]
        assert header.split() == columns
        row_of_job = (
            rf" \d\d:\d\d:\d\d  {job_id[:8]} +Completed +\S+ s +\w{{8}} +Docker busybox:latest .*"
            r"  ipfs://bafy\w{55}"
        )
        assert re.fullmatch(row_of_job, row)
        fetched = network.cli("get", job_id, cwd=tmp_path)
        folder = tmp_path / f"job-{job_id[:8]}"
        assert fetched.stdout.splitlines() == [
            f"Fetching results of job '{job_id[:8]}'...",
            f"Result: {row.split()[-1]}",
            f"Results for job '{job_id[:8]}' have been written to {folder}",
        ]
        assert (folder / "stdout").read_text().endswith("\nHello from Bacalhau!\n")
    left = {"label": f"job={job_id}"}
    eventually(lambda: docker_client.containers.list(all=True, filters=left, ignore_removed=True) == [])


def test_a_job_file_written_for_bacalhau_runs_unchanged(network, tmp_path):
    file = tmp_path / "job.yaml"
    cid = network.cli("add", PROBE).stdout.strip()
    file.write_text(f"""
Name: greeting
Type: batch
Namespace: default
Count: 1
Tasks:
  - Name: main
    Engine:
      Type: wasm
      Params:
        EntryModule: /app/probe.wasm
        Entrypoint: _start
        Parameters: [say, hello, there]
    InputSources:
      - Target: /app/probe.wasm
        Alias: probe
        Source: {{Type: ipfs, Params: {{CID: {cid}}}}}
    Publisher: {{Type: ipfs}}
    Resources: {{CPU: "0.1", Memory: 64mb}}
    Timeouts: {{TotalTimeout: 600}}
""")
    ran = network.cli("job", "run", "--wait", file)
    assert ran.returncode == 0, ran.stderr


def test_a_result_with_a_non_zero_exit_code_is_fetched_like_any_other(network, tmp_path):
    ran = network.cli(
        "wasm", "run", "--download", "--output-dir", "out", PROBE, "--", "exit", 42, cwd=tmp_path
    )
    assert ran.returncode == 42
    assert (tmp_path / "out" / "exitCode").read_text() == "42"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["describe", "00000000"], 1, "00000000"),
        (["get", "00000000"], 1, "00000000"),
        (["cancel", "00000000"], 1, "00000000"),
        (["wasm", "run", "nothing.wasm"], 2, "nothing.wasm"),
        (["wasm", "run", "{malformed}"], 125, "malformed.wasm"),
        (["wasm", "run", "--entrypoint", "nowhere", "{probe}"], 125, "nowhere"),
        (["wasm", "run", "-i", "ipfs://{absent}", "{probe}"], 125, "{absent}"),
        (["docker", "run", "--queue-timeout", "1", "busybox"], 125, "no docker engine"),
        (["job", "run", "{invalid}"], 125, "Tasks[0].Engine.Params.Image: missing"),
        (["validate", "{invalid}"], 1, "Tasks[0].Engine.Params.Image: missing"),
        (["job", "run", "no-such-file.yaml"], 2, "no-such-file.yaml"),
        (["wasm", "run", "--cpu", "lots", "{probe}"], 125, "--cpu: 'lots' is not a number of cores"),
        (["wasm", "run", "--queue-timeout", "1", "--cpu", "9000", "{probe}"], 125, "too small"),
        (["--api-port", "1", "list"], 1, "127.0.0.1:1"),
        (["cid", "no-such-file"], 2, "no-such-file"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_an_input_error_is_one_line_without_a_traceback(network, tmp_path, arguments, status, message):
    malformed, invalid = tmp_path / "malformed.wasm", tmp_path / "invalid.yaml"
    malformed.write_bytes(b"\0asm garbage")
    invalid.write_text("Tasks: [{Engine: {Type: docker, Params: {}}}]")
    words = {
        "malformed": malformed,
        "invalid": invalid,
        "probe": PROBE,
        "absent": "bafkreih2bk74eu5axngebs6vftmmkcaqboysjjy726xzy5hksnqmfgw5fy",
    }
    ran = network.cli(*(argument.format(**words) for argument in arguments), cwd=tmp_path)
    errors = [line for line in ran.stderr.splitlines() if line.startswith("Error")]
    assert ran.returncode == status, ran.stderr
    assert len(errors) == 1
    assert message.format(**words) in errors[0]
    assert "Traceback" not in ran.stderr


def test_an_ambiguous_prefix_of_an_id_is_rejected(network):
    ids: list[str] = []
    while len({job_id[0] for job_id in ids}) == len(
        ids
    ):  # after 17 jobs at the latest two share their first digit
        ids.append(network.cli("wasm", "run", "--id-only", PROBE, "--", "say", "x", "").stdout.strip())
    ran = network.cli("describe", ids[-1][0])
    assert ran.returncode == 1
    assert ran.stderr.startswith(f"Error: several jobs match the prefix {ids[-1][0]}: ")


def test_the_example_of_a_wasm_job_works(network):
    ran = subprocess.run(
        [sys.executable, REPOSITORY / "examples" / "submit_wasm.py"],
        env={**os.environ, "BACALHAU_P2P_API_PORT": str(network.port)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "exit code 0, ipfs://bafy" in ran.stdout


def test_the_example_of_three_peers_works():
    ran = subprocess.run(
        [sys.executable, REPOSITORY / "examples" / "three_peers.py"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("Completed") == 2


# --- nodes that lie, crash or are stopped -------------------------------------------------


def test_a_result_that_differs_from_two_equal_ones_is_rejected(tmp_path):
    with network_of(tmp_path, [(), (sys.executable, str(LIAR), "serve"), ()]) as (network, nodes):
        file = tmp_path / "job.json"
        file.write_text(
            json.dumps(
                {
                    "Count": 3,
                    "Verifier": {"Type": "deterministic", "Params": {"Confidence": 2}},
                    "Tasks": [{"Engine": {"Type": "noop", "Params": {"Stdout": "truth\n"}}}],
                }
            )
        )
        ran = network.cli("job", "run", "--id-only", "--wait", file)
        assert ran.returncode == 0, ran.stderr
        job, executions = network.job(ran.stdout.strip())
        assert job["State"]["StateType"] == "Completed"
        states = {e["NodeID"]: e["ComputeState"]["State"] for e in executions[::-1]}  # accepted ones count
        assert states == {
            nodes[0].peer_id: "Completed",
            nodes[1].peer_id: "ResultRejected",
            nodes[2].peer_id: "Completed",
        }


def test_a_result_whose_entries_are_not_those_of_its_cid_is_not_delivered(tmp_path):
    with network_of(tmp_path, [(sys.executable, str(FALSE_ROOT), "serve")]) as (network, _):
        file = tmp_path / "job.json"
        file.write_text(
            json.dumps(
                {
                    "Verifier": {
                        "Type": "deterministic",
                        "Params": {"Confidence": 1, "Entries": ["stdout"]},
                    },
                    "Tasks": [{"Engine": {"Type": "noop", "Params": {"Stdout": "truth\n"}}}],
                }
            )
        )
        job_id = network.cli("job", "run", "--id-only", file).stdout.strip()

        def ended() -> list[dict[str, str]]:
            states = [execution["ComputeState"] for execution in network.job(job_id)[1]]
            return [state for state in states if state["State"] in ("Completed", "Failed")]

        first = eventually(ended)[0]
        assert first["State"] == "Failed"
        assert "its entries are not those of the folder" in first["Message"]
        assert network.get(f"/api/v1/orchestrator/jobs/{job_id}/results")["Items"] == []


def test_a_node_survives_a_job_that_leaves_1500_nested_folders(tmp_path):
    program = (sys.executable, "-m", "tests.support.networks.nesting_node", "serve")
    with network_of(tmp_path, [program]) as (network, (node,)):
        file = tmp_path / "job.json"
        file.write_text(json.dumps({"Tasks": [{"Engine": {"Type": "noop"}}]}))
        job_id = network.cli("job", "run", "--id-only", file).stdout.strip()

        def failed() -> list[str]:
            states = [execution["ComputeState"] for execution in network.job(job_id)[1]]
            return [state["Message"] for state in states if state["State"] == "Failed"]

        assert "folders are nested more than 64 levels deep" in eventually(failed)[0]
        assert node.process.poll() is None
        executions = tmp_path / "compute-0" / "executions"
        eventually(lambda: not list(executions.iterdir()))


def test_a_killed_node_is_replaced_by_another(tmp_path):
    with network_of(tmp_path, [(), ()]) as (network, nodes):
        ran = network.cli("wasm", "run", "--id-only", PROBE, "--", "doze", 3)
        job_id = ran.stdout.strip()

        def running() -> list[str]:
            return [
                e["NodeID"] for e in network.job(job_id)[1] if e["ComputeState"]["State"] == "BidAccepted"
            ]

        (runner,) = eventually(running)
        (victim,) = [node for node in nodes if node.peer_id == runner]
        victim.process.kill()
        job, executions = network.job(job_id, wait=60)
        assert job["State"]["StateType"] == "Completed", job["State"]
        states = {e["NodeID"]: e["ComputeState"]["State"] for e in executions[::-1]}  # accepted ones count
        assert states.pop(victim.peer_id) == "Lost"
        assert set(states.values()) >= {"Completed"}


def test_a_restarted_requester_continues_its_jobs(tmp_path):
    command = ("env", COMMAND, "serve")  # which is not forked, as those of other tests are
    requester = Node(tmp_path / "requester", "--no-compute", "--swarm-port", "0", program=command)
    job_id = requester.network.cli("wasm", "run", "--id-only", PROBE, "--", "say", "hello", "").stdout.strip()
    requester.process.kill()
    requester.process.communicate()
    again = Node(tmp_path / "requester", "--engine", "wasm", program=command)
    try:
        job, _ = again.network.job(job_id, wait=60)
        assert job["State"]["StateType"] == "Completed", job["State"]
    finally:
        again.stop()


def test_a_port_that_is_in_use_is_an_error_of_one_line(tmp_path, network):
    ran = subprocess.run(
        [COMMAND, "serve", "--data-dir", tmp_path, "--swarm-port", "0", "--api-port", str(network.port)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 1
    cause = f"cannot listen on API address 127.0.0.1:{network.port}: already in use"
    assert ran.stderr == f"Error: {cause}; choose another port with --api-port\n"


def test_the_devstack_exits_with_the_status_of_its_command_and_leaves_nothing_behind(tmp_path):
    stack = [COMMAND, "devstack", "--compute-nodes", "1", "--engine", "noop", "--"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    ran = subprocess.run([*stack, "sh", "-c", "exit 7"], env=environment, timeout=120, check=False)
    assert ran.returncode == 7
    assert list(tmp_path.iterdir()) == []


def test_a_killed_devstack_leaves_nothing_behind(tmp_path):
    with devstack("--compute-nodes", "2", "--engine", "noop", folder=tmp_path) as (_, process):
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == 3
        assert len(list(tmp_path.iterdir())) == 1
        process.send_signal(signal.SIGKILL)
        process.wait()
    eventually(lambda: not any(Path(f"/proc/{child}").exists() for child in children))
    eventually(lambda: list(tmp_path.iterdir()) == [])
