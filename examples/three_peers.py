"""A network of three peers from one script: two run jobs in processes of their own, this one submits them.

    python examples/three_peers.py

Both peers count the words of the same books. The result is accepted because they agree.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import trio

from bacalhau_p2p import Settings, open_node, wasm

HERE = Path(__file__).parent
WORDCOUNT = HERE / "wordcount"


@asynccontextmanager
async def peer(folder: Path, requester: str) -> AsyncIterator[trio.Process]:
    """Run a compute peer in a process of its own for the length of the block."""
    command = [sys.executable, str(HERE / "serve_node.py"), "--data-dir", str(folder), "--peer", requester]
    process = await trio.lowlevel.open_process([*command, "--engine", "wasm"], stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        with trio.CancelScope(shield=True):
            await process.wait()


async def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = Settings(data_dir=folder / "me", compute=False, swarm_host="127.0.0.1", swarm_port=0)
        async with open_node(settings) as node, AsyncExitStack() as peers:
            for number in range(2):
                await peers.enter_async_context(peer(folder / f"peer-{number}", node.addresses[0]))
            await node.wait_for_compute_nodes(2)
            module = await node.add(WORDCOUNT / "wordcount.wasm")
            texts = await node.add(WORDCOUNT / "texts")
            inputs = {"/inputs": texts}
            spec = wasm(module, "-n", "5", "/inputs", name="word count", inputs=inputs, count=2, confidence=2)
            job = await node.submit(spec)
            result = await job.wait_result(timeout=120)
            for execution in result.executions:
                print(f"{execution.node_id[-8:]}  {execution.state}")
            await result.fetch(folder / "results")
            print(f"ipfs://{result.cid}\n")
            print((folder / "results" / "stdout").read_text())


if __name__ == "__main__":
    trio.run(main)
