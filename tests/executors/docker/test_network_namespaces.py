"""A socket in the network namespace of another process."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.docker.network_namespaces import listen_in, may_enter_namespaces
from tests.support.waiting import eventually

PORT = 3128


@pytest.fixture
def isolated() -> Iterator[int]:
    """A process in a network namespace that this test made, where nothing but loopback is."""
    if not may_enter_namespaces() or shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("only root may make network namespaces")
    process = subprocess.Popen(["unshare", "--net", "sh", "-c", "ip link set lo up && exec sleep 3600"])
    try:
        own = Path("/proc/self/ns/net").readlink()
        eventually(lambda: Path(f"/proc/{process.pid}/ns/net").readlink() != own)
        eventually(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n")
        yield process.pid
    finally:
        process.kill()
        process.wait()


def cgroup(pid: int | str) -> str:
    """What stands for the id of its container."""
    return Path(f"/proc/{pid}/cgroup").read_text().splitlines()[0].rpartition("/")[2]


def test_a_socket_made_in_a_namespace_is_reached_from_there_and_only_there(isolated: int) -> None:
    before = Path("/proc/self/ns/net").readlink()
    with listen_in(isolated, cgroup(isolated), PORT) as listener:
        assert Path("/proc/self/ns/net").readlink() == before
        script = "import socket; print(socket.create_connection(('127.0.0.1', 3128)).recv(9).decode())"
        inside = subprocess.Popen(
            ["nsenter", "--net", "--target", str(isolated), "python3", "-c", script],
            stdout=subprocess.PIPE,
            text=True,
        )
        listener.settimeout(60)
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"from here")
        assert inside.communicate(timeout=60)[0] == "from here\n"
        with socket.socket() as outside:
            outside.bind(("127.0.0.1", PORT))  # nothing of it is in the namespace of this process


def test_a_process_that_is_not_of_the_container_is_refused(isolated: int) -> None:
    with pytest.raises(ExecutorError, match="the Docker engine is not on this machine"):
        listen_in(isolated, "0123456789abcdef" * 4, PORT)


def test_nobody_listens_in_the_network_of_this_machine() -> None:
    with pytest.raises(ExecutorError, match="the Docker engine is not on this machine"):
        listen_in(os.getpid(), cgroup("self"), PORT)


def test_a_process_that_has_ended_is_refused() -> None:
    with pytest.raises(ExecutorError, match=r"^the network of the job cannot be opened: No such file"):
        listen_in(2**22 + 1, "0123456789abcdef" * 4, PORT)
