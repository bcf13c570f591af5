"""Prints the addresses of all peers that it finds with mDNS, one a line: in a process of its own.

Usage: mdns_listener.py [ADDRESS ...]

It answers with these multiaddrs of its own.
"""

from __future__ import annotations

import random
import sys

import trio

from bacalhau_p2p.discovery.mdns import Mdns


def show(peer: str, addresses) -> None:
    print(*addresses, sep="\n", flush=True)


if __name__ == "__main__":
    trio.run(Mdns(lambda: sys.argv[1:], show, random.SystemRandom()).run)
