"""Node processes that are killed, stopped and started again, each with its own data directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import trio
from links import Links

COMMAND = str(Path(sys.executable).parent / "bacalhau-p2p")
MARK = "BACALHAU_P2P_CHAOS"
"""An environment variable of every node. It identifies processes that a node leaves running."""
START_TIMEOUT = 90.0
STOP_TIMEOUT = 60.0


class Node:
    """One node, over all its processes."""

    def __init__(
        self,
        number: int,
        links: Links,
        folder: Path,
        token: str,
        flags: Sequence[str],
        environment: Mapping[str, str],
    ) -> None:
        self.number = number
        self.name = "requester" if number == 0 else f"compute-{number}"
        self.busy = False
        """Whether a fault is being injected into it."""
        self.peer_id = ""
        self.data = folder / self.name
        self.log = folder / f"{self.name}.log"
        host, api, swarm = links.listen_address(number)
        self.url = f"http://{host}:{api}"
        self._headers = {"Authorization": f"Bearer {token}"}
        self._environment = {
            **os.environ,
            **environment,
            MARK: str(folder),
            "BACALHAU_P2P_API_TOKEN": token,
        }
        self.address = "/ip4/{}/tcp/{}".format(*links.dial_address(number))
        """The multiaddr at which other nodes dial it, without its peer id."""
        links.set_process(number, lambda: self._process.pid if self._process is not None else None)
        self._command = [
            *links.command_prefix(number),
            *(COMMAND, "serve", "--data-dir", str(self.data), "--drain", "2"),
            *("--swarm-host", host, "--swarm-port", str(swarm), "--api-host", host, "--api-port", str(api)),
            # Without mDNS: parts of the network that are cut off must find back by themselves.
            *("--announce", self.address, "--no-mdns", "--log-level", "info", *flags),
        ]
        self._process: trio.Process | None = None

    def join(self, address: str) -> None:
        """Connect to the peer at this multiaddr, from the next start on."""
        self._command += ["--peer", address]

    async def start(self) -> None:
        """Returns when its API answers. Raises TooSlowError, RuntimeError if the process ends."""
        with self.log.open("ab") as log:
            self._process = await trio.lowlevel.open_process(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        with trio.fail_after(START_TIMEOUT):
            while not (info := await self.info()):
                if self._process.poll() is not None:
                    raise RuntimeError(f"{self.name} ended: {self.last_log_line()}")
                await trio.sleep(0.1)
        self.peer_id = str(info["NodeID"])

    async def info(self) -> dict[str, Any] | None:
        """What its API says about it; None if it does not answer."""
        try:
            async with httpx.AsyncClient(trust_env=False, headers=self._headers, timeout=5) as http:
                answer = await http.get(f"{self.url}/api/v1/agent/node")
        except httpx.HTTPError:
            return None
        return dict(answer.json()) if answer.status_code == 200 else None

    def last_log_line(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return lines[-1] if lines else "it has logged nothing"

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def kill(self) -> None:
        """Send SIGKILL to the node's process only."""
        self.signal(signal.SIGKILL)
        assert self._process is not None
        await self._process.wait()

    async def stop(self) -> int:
        """Send SIGTERM, and SIGKILL after STOP_TIMEOUT. Returns the exit status."""
        if self._process is None:
            return 0
        self.signal(signal.SIGTERM)
        with trio.move_on_after(STOP_TIMEOUT):
            await self._process.wait()
        if self._process.returncode is None:
            await self.kill()
        return int(self._process.returncode or 0)


def processes_of(folder: Path) -> list[str]:
    """The command lines of all processes that descend from a node of this folder."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            with suppress(OSError):
                if f"{MARK}={folder}\0".encode() in (process / "environ").read_bytes() + b"\0":
                    line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    found.append(f"{process.name} {line.strip()[:200]}")
    return found


def mounts_below(folder: Path) -> list[str]:
    lines = Path("/proc/mounts").read_text().splitlines()
    return [line.split()[1] for line in lines if line.split()[1].startswith(f"{folder}/")]
