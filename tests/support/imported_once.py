"""What the fork server imports, so that the processes that are forked from it share it."""

from __future__ import annotations

import gc
import pkgutil
from importlib import import_module

import bacalhau_p2p
from bacalhau_p2p.node.registry import find_plugins

LATE = ("tests.support.peers.hostile_peers",)
"""What is only imported when it is needed, by those who need it, and is no module of the package."""

ELSEWHERE = ("bacalhau_p2p.functions.guest.", "bacalhau_p2p.executors.wasm.child")
"""What runs in other interpreters and processes."""

for found in pkgutil.walk_packages(bacalhau_p2p.__path__, "bacalhau_p2p."):
    if not found.name.endswith("__main__") and not found.name.startswith(ELSEWHERE):
        import_module(found.name)
for name in LATE:
    import_module(name)
find_plugins()
gc.collect()
gc.freeze()  # pages are shared with the children until either writes to them
