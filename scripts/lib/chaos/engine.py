"""A Docker engine of our own, which can be restarted under the nodes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import docker
import trio

START_TIMEOUT = 60.0
NODE_LABEL = "bacalhau-p2p.node"


class OwnEngine:
    """A dockerd in a folder of its own, with the image busybox:latest. Needs root."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="bacalhau-chaos-engine-", dir="/tmp"))
        self.host = f"unix://{self._folder}/docker.sock"
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Returns once it answers. Raises TooSlowError, OSError."""
        self._launch()
        with trio.fail_after(START_TIMEOUT):
            while not engine_answers(self.host):  # noqa: ASYNC110 - an engine does not say when it is ready
                await trio.sleep(0.1)

    def _launch(self) -> None:
        folder = self._folder
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("dockerd", "--host", self.host, "--data-root", folder / "data"),
                    *("--exec-root", folder / "exec", "--pidfile", folder / "docker.pid"),
                    *("--bridge", "none", "--iptables=false", "--ip6tables=false"),
                    *("--shutdown-timeout", "2"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def load_image(self) -> None:
        script = Path(__file__).parents[1] / "busybox_image.py"
        environment = {**os.environ, "DOCKER_HOST": self.host}
        subprocess.run([sys.executable, script], env=environment, check=True)

    async def restart(self, *, kill: bool) -> None:
        """Stop it in order, or `kill` it, and start it again."""
        self._end(signal.SIGKILL if kill else signal.SIGTERM)
        self._end_containerd()
        await self.start()

    def _end_containerd(self) -> None:
        """End the child of a killed engine, which would keep the next one from starting its own."""
        folder = self._folder / "exec" / "containerd"
        with suppress(OSError, ValueError):
            os.kill(int((folder / "containerd.pid").read_text()), signal.SIGKILL)
        for name in ("containerd.pid", "containerd.sock", "containerd.sock.ttrpc"):
            (folder / name).unlink(missing_ok=True)
        (self._folder / "docker.pid").unlink(missing_ok=True)

    def close(self) -> None:
        """Remove everything: processes, mounts and the folder."""
        self._end(signal.SIGTERM)
        for process in Path("/proc").iterdir():
            with suppress(OSError):
                line = (process / "cmdline").read_bytes() if process.name.isdecimal() else b""
                if f"{self._folder}/".encode() in line and int(process.name) != os.getpid():
                    os.kill(int(process.name), signal.SIGKILL)
        time.sleep(0.2)
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((m for m in mounts if m.startswith(f"{self._folder}/")), reverse=True):
            subprocess.run(["umount", "-l", mount], check=False)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def engine_answers(host: str | None = None) -> bool:
    """Whether an engine answers."""
    try:
        client = docker.DockerClient(host, timeout=5) if host else docker.from_env(timeout=5)
        with suppress(docker.errors.ImageNotFound):
            client.ping()
            return True
    except docker.errors.DockerException:
        pass
    return False


def containers_of(host: str | None, peers: set[str]) -> list[str]:
    """Containers of these nodes, running or not."""
    client = docker.DockerClient(host, timeout=30) if host else docker.from_env(timeout=30)
    found = client.containers.list(all=True, filters={"label": NODE_LABEL})
    return [str(c.name) for c in found if c.labels[NODE_LABEL] in peers]
