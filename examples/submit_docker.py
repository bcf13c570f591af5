"""Submit a Docker job to a running node over its HTTP API. The node needs a Docker engine.

bacalhau-p2p devstack -- python examples/submit_docker.py
"""

from __future__ import annotations

import trio

from bacalhau_p2p import Client, docker


async def main() -> None:
    async with Client() as client:
        hello = docker("busybox:latest", "sh", "-c", "uname -a && echo Hello from a container", name="hello")
        job = await client.submit(hello)
        result = await job.wait_result(timeout=300)
        print(result.stdout.decode())
        print(f"ipfs://{result.cid}")


if __name__ == "__main__":
    trio.run(main)
