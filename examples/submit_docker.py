"""Submit a Docker job to a running node over its HTTP API. The node needs a Docker engine.

bacalhau-p2p devstack -- python examples/submit_docker.py
"""

from __future__ import annotations

import os

import trio

from bacalhau_p2p import Client


def api() -> str:
    """The URL of the node, from the same variables as the command line."""
    host = os.environ.get("BACALHAU_P2P_API_HOST", "127.0.0.1")
    return f"http://{host}:{os.environ.get('BACALHAU_P2P_API_PORT', '1234')}"


async def main() -> None:
    async with Client(api()) as client:
        job = await client.submit(
            {
                "Name": "hello",
                "Tasks": [
                    {
                        "Engine": {
                            "Type": "docker",
                            "Params": {
                                "Image": "busybox:latest",
                                "Parameters": ["sh", "-c", "uname -a && echo Hello from a container"],
                            },
                        }
                    }
                ],
            }
        )
        result = await job.wait_result(timeout=300)
        print(result.stdout.decode())
        print(f"ipfs://{result.cid}")


if __name__ == "__main__":
    trio.run(main)
