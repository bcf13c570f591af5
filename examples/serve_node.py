"""Run a peer from a script until Ctrl-C.

    python examples/serve_node.py --data-dir /tmp/alice
    python examples/serve_node.py --data-dir /tmp/bob --peer /ip4/127.0.0.1/tcp/PORT/p2p/ID

The first line of output is the multiaddr that other peers dial.
"""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

import trio

from bacalhau_p2p import Settings, open_node


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--peer", action="append", default=[])
    parser.add_argument("--engine", action="append", default=[])
    chosen = parser.parse_args()
    settings = Settings(
        data_dir=chosen.data_dir,
        swarm_host="127.0.0.1",
        swarm_port=0,
        peers=tuple(chosen.peer),
        engines=tuple(chosen.engine),
        labels={"example": "serve_node"},
    )
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_node(settings) as node:
            print(node.addresses[0], flush=True)
            await anext(aiter(signals))


if __name__ == "__main__":
    trio.run(main)
