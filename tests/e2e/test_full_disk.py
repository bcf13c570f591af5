"""A node with a full disk says so in one line, and continues from what it stored once there is room."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager

import httpx
import pytest

from tests.support.networks.forked_commands import COMMAND
from tests.support.networks.networks import Node
from tests.support.networks.small_disk import Limited, small_disk
from tests.support.programs.wasm_programs import PROBE

pytestmark = pytest.mark.network

MIB = 1024 * 1024


@contextmanager
def node_on(disk, *flags, min_free="0"):
    """A node on the disk. It takes jobs while `min_free` is free."""
    environment = ("env", f"BACALHAU_P2P_MIN_FREE_DISK={min_free}")
    program = (*environment, *disk.prefix, COMMAND, "serve", "--drain", "0")
    node = Node(disk.folder / "node", *flags, program=program)
    try:
        yield node
    finally:
        node.stop()


def noop(text, count=1):
    return {"Count": count, "Tasks": [{"Engine": {"Type": "noop", "Params": {"Stdout": text}}}]}


def submit(node, job, token=""):
    url = f"http://127.0.0.1:{node.network.port}/api/v1/orchestrator/jobs"
    body = {"Job": job, **({"IdempotencyToken": token} if token else {})}
    return httpx.put(url, json=body, timeout=30, trust_env=False)


def submit_many(node, job):
    for number in range(100):
        submit(node, job, token=f"token {number}")


@pytest.fixture(params=["file system", "file size"])
def disk(request, tmp_path):
    """A small file system if this user may mount one, and a limit on the size of files."""
    if request.param == "file size":
        (tmp_path / "disk").mkdir()
        yield Limited(tmp_path / "disk", 4 * MIB)
        return
    with small_disk(tmp_path / "disk", 4 * MIB) as disk:
        yield disk


def test_a_node_stops_with_one_line_when_its_disk_is_full_and_resumes_its_jobs_later(disk):
    with node_on(disk, "--engine", "noop") as node:
        done = submit(node, noop("done")).json()["JobID"]
        assert node.network.job(done, wait=30)[0]["State"]["StateType"] == "Completed"
        waits = submit(node, noop("waits", count=2)).json()["JobID"]  # there is one node only
        disk.fill(node.process.pid)
        with pytest.raises(httpx.TransportError):
            submit_many(node, noop("lost"))  # until the last page of the database is full too
        assert node.process.wait(30) == 1
        printed = node.stop().splitlines()
        assert len(printed) == 1
        assert printed[0].startswith("Error: ")
        assert printed[0].endswith(
            (".db cannot be written: database or disk is full", ".db cannot be written: disk I/O error")
        )
    disk.empty()
    with node_on(disk, "--engine", "noop") as node:
        assert node.network.job(done)[0]["State"]["StateType"] == "Completed"
        assert node.network.job(waits)[0]["State"]["StateType"] in ("Pending", "Running")
        again = submit(node, noop("lost"), token="token 99").json()["JobID"]
        assert node.network.job(again, wait=30)[0]["State"]["StateType"] == "Completed"
        assert node.stop() == ""


def test_a_node_with_little_free_disk_rejects_jobs_and_keeps_running(tmp_path):
    with small_disk(tmp_path / "disk", 4 * MIB) as disk:
        min_free = "1EB" if isinstance(disk, Limited) else "1MB"
        with node_on(disk, "--engine", "noop", min_free=min_free) as node:
            if not isinstance(disk, Limited):
                assert submit(node, noop("early"), token="early").status_code == 200
                disk.fill(node.process.pid, leave=MIB * 7 // 8)  # the early job still writes
            refused = submit(node, noop("late"))
            assert refused.status_code == 507
            assert refused.json()["Message"] == "this node takes no jobs now: it has almost no free disk"
            assert refused.json()["Kind"] == "DiskFull"
            if not isinstance(disk, Limited):
                assert submit(node, noop("early"), token="early").status_code == 200  # already stored
                disk.empty()
                assert submit(node, noop("late")).status_code == 200
            assert node.stop() == ""


def test_content_that_does_not_fit_is_rejected_and_the_node_keeps_running(disk, tmp_path):
    (tmp_path / "large").write_bytes(os.urandom(MIB))
    (tmp_path / "small").write_bytes(b"fits")
    with node_on(disk, "--engine", "noop") as node:
        disk.fill(node.process.pid, leave=MIB // 8)  # large files are stored in blocks of twice this size
        added = node.network.cli("add", tmp_path / "large")
        assert (added.returncode, added.stdout) == (1, "")
        assert re.fullmatch(
            r"Error: cannot store blocks: (No space left on device|File too large)\n", added.stderr
        )
        assert node.network.cli("add", tmp_path / "small").returncode == 0
        assert node.stop() == ""


def test_a_job_that_fills_the_disk_fails_and_its_node_keeps_running(disk, tmp_path):
    requester = Node(tmp_path / "requester", "--no-compute")
    try:
        network = requester.network
        flags = ("--no-requester", "--engine", "wasm", "--engine", "noop", "--peer", requester.address)
        with node_on(disk, *flags) as node:
            network.wait_for_compute_nodes(1)
            disk.fill(node.process.pid, leave=2 * MIB)
            ran = network.cli("wasm", "run", "--id-only", PROBE, "--", "flood", "200000")  # of 64 bytes each
            _, executions = network.job(ran.stdout.strip(), wait=60)
            assert executions[0]["ComputeState"]["State"] == "Failed"
            assert "cannot be written" in executions[0]["ComputeState"]["Message"]
            fine = submit(requester, noop("fine")).json()["JobID"]
            assert network.job(fine, wait=30)[0]["State"]["StateType"] == "Completed"
            assert node.stop() == ""
    finally:
        requester.stop()
