"""Submit a WebAssembly job to a running node over its HTTP API: three nodes run it, and two must agree.

bacalhau-p2p devstack -- python examples/submit_wasm.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import trio

from bacalhau_p2p import Client, wasm

WORDCOUNT = Path(__file__).parent / "wordcount"


async def main() -> None:
    async with Client() as client:
        module = await client.add(WORDCOUNT / "wordcount.wasm")
        texts = await client.add(WORDCOUNT / "texts")
        inputs = {"/inputs": texts}
        spec = wasm(module, "-n", "3", "/inputs", name="word count", inputs=inputs, count=3, confidence=2)
        job = await client.submit(spec)
        print(f"submitted {job.id}")
        result = await job.wait_result(timeout=120)
        print(f"exit code {result.exit_code}, ipfs://{result.cid}")
        with tempfile.TemporaryDirectory() as folder:
            results = await result.fetch(Path(folder) / "results")
            print((results / "stdout").read_text())


if __name__ == "__main__":
    trio.run(main)
