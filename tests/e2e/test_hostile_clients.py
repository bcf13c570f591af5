"""A node in a process of its own, with few descriptors, and clients of its API that mean it harm."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import h2.config
import h2.connection
import pytest

from bacalhau_p2p.runtime import descriptors
from tests.support.networks.forked_commands import COMMAND
from tests.support.networks.networks import Node
from tests.support.processes import open_files
from tests.support.waiting import eventually

pytestmark = pytest.mark.network

DESCRIPTORS = 256
FEW = ("bash", "-c", f'ulimit -n {DESCRIPTORS}; exec "$@"', "bash", COMMAND, "serve", "--engine", "noop")
JOBS = "/api/v1/orchestrator/jobs"
NOOP = json.dumps({"Tasks": [{"Engine": {"Type": "noop"}}]}).encode()
NO_BODY = b"PUT /api/v1/content HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"


@contextmanager
def node_with_few_descriptors(folder: Path) -> Iterator[Node]:
    node = Node(folder, program=FEW)
    try:
        yield node
    finally:
        node.stop()


def run_job(node: Node) -> str:
    """The state of a job that somebody honest submits."""
    connection = HTTPConnection("127.0.0.1", node.network.port, timeout=60)
    try:
        connection.request("PUT", JOBS, NOOP)
        job_id = json.load(connection.getresponse())["JobID"]
    finally:
        connection.close()
    return str(node.network.job(job_id, wait=60)[0]["State"]["StateType"])


def http2_request(path: bytes) -> bytes:
    client = h2.connection.H2Connection(h2.config.H2Configuration(validate_outbound_headers=False))
    client.initiate_connection()
    headers = [
        (b":method", b"GET"),
        (b":path", path),
        (b":scheme", b"http"),
        (b":authority", b"evil.example"),
    ]
    client.send_headers(1, headers, end_stream=True)
    return client.data_to_send()


def test_clients_that_never_send_do_not_stop_jobs(tmp_path):
    with node_with_few_descriptors(tmp_path) as node, ExitStack() as stack:
        assert run_job(node) == "Completed"
        for _ in range(DESCRIPTORS + 50):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", node.network.port), 30))
            client.sendall(NO_BODY)
        assert run_job(node) == "Completed"
        assert open_files(node.process.pid) < DESCRIPTORS // 2
        counters = node.network.get("/api/v1/agent/node")["Counters"]
        assert counters["api_connections_dropped"] > DESCRIPTORS - 50


def test_a_node_raises_its_soft_limit_of_descriptors(tmp_path):
    node = Node(tmp_path, program=("bash", "-c", 'ulimit -Sn 256; exec "$@"', "bash", COMMAND, "serve"))
    try:
        limits = Path(f"/proc/{node.process.pid}/limits").read_text()
        soft, hard = next(line.split()[3:5] for line in limits.splitlines() if "open files" in line)
        assert int(soft) == min(int(hard), descriptors.MOST)
    finally:
        node.stop()


def test_a_request_that_hypercorn_cannot_read_does_not_end_the_node(tmp_path):
    with node_with_few_descriptors(tmp_path) as node:
        with socket.create_connection(("127.0.0.1", node.network.port), 30) as client:
            client.sendall(http2_request(b"/\xff"))
            eventually(lambda: node.network.get("/api/v1/agent/node")["Counters"].get("api_faults"), 30)
        assert run_job(node) == "Completed"


def test_a_client_that_does_not_read_does_not_delay_the_end_of_the_node(tmp_path):
    content = tmp_path / "large"
    content.write_bytes(bytes(30_000_000))
    with node_with_few_descriptors(tmp_path / "node") as node:
        cid = node.network.cli("add", content).stdout.strip()
        with socket.create_connection(("127.0.0.1", node.network.port), 30) as client:
            client.sendall(f"GET /ipfs/{cid}?format=raw HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            client.sendall(f"GET /ipfs/{cid} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            assert client.recv(1)
            node.process.send_signal(signal.SIGTERM)
            assert node.process.wait(20) == 0
