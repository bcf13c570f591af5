"""Submit a WebAssembly job to a running node over its HTTP API.

bacalhau-p2p devstack -- python examples/submit_wasm.py
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import trio

from bacalhau_p2p import Client

WORDCOUNT = Path(__file__).parent / "wordcount"


def api() -> str:
    """The URL of the node, from the same variables as the command line."""
    host = os.environ.get("BACALHAU_P2P_API_HOST", "127.0.0.1")
    return f"http://{host}:{os.environ.get('BACALHAU_P2P_API_PORT', '1234')}"


async def main() -> None:
    async with Client(api()) as client:
        module = await client.add(WORDCOUNT / "wordcount.wasm")
        texts = await client.add(WORDCOUNT / "texts")
        job = await client.submit(
            f"""
            Name: word count
            Count: 3
            Verifier: {{Type: deterministic, Params: {{Confidence: 2}}}}
            Tasks:
              - Engine:
                  Type: wasm
                  Params: {{EntryModule: /module/wordcount.wasm, Parameters: ["-n", "3", "/inputs"]}}
                InputSources:
                  - {{Target: /module/wordcount.wasm, Source: {{Type: ipfs, Params: {{CID: {module}}}}}}}
                  - {{Target: /inputs, Source: {{Type: ipfs, Params: {{CID: {texts}}}}}}}
                ResultPaths: [{{Name: outputs, Path: /outputs}}]
            """
        )
        print(f"submitted {job.id}")
        result = await job.wait_result(timeout=120)
        print(f"exit code {result.exit_code}, ipfs://{result.cid}")
        with tempfile.TemporaryDirectory() as folder:
            results = await result.fetch(Path(folder) / "results")
            print((results / "stdout").read_text())


if __name__ == "__main__":
    trio.run(main)
