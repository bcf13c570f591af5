"""A compute-over-data network: jobs run on the peers that have the data.

from bacalhau_p2p import Client, Settings, open_node
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bacalhau_p2p.version import __version__

if TYPE_CHECKING:
    from bacalhau_p2p.client.client import Client
    from bacalhau_p2p.node import Node, open_node
    from bacalhau_p2p.settings import Settings, load_settings

__all__ = ["Client", "Node", "Settings", "__version__", "load_settings", "open_node"]

_MODULES = {
    "Client": "bacalhau_p2p.client.client",
    "Node": "bacalhau_p2p.node",
    "open_node": "bacalhau_p2p.node",
    "Settings": "bacalhau_p2p.settings",
    "load_settings": "bacalhau_p2p.settings",
}


def __getattr__(name: str) -> Any:
    # Imported on first use, so that a command that only needs HTTP does not load libp2p.
    if name in _MODULES:
        import importlib

        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
