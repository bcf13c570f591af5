"""A node: a libp2p peer with a requester, a compute component, or both."""

from bacalhau_p2p.node.assembly import open_node
from bacalhau_p2p.node.node import Node

__all__ = ["Node", "open_node"]
