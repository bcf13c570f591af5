"""What commands that wait say while their node restarts."""

from __future__ import annotations

from bacalhau_p2p.cli.printing import print_line
from bacalhau_p2p.client.retry import RECONNECT, Patience

NODE_AWAY = f"the node does not answer; waiting up to {RECONNECT:g} s for it"


def said_patience(*, from_start: bool = False) -> Patience:
    """Waits for a node, by default for one that has answered once, and says so on stderr."""
    return Patience(from_start=from_start, on_loss=lambda: print_line(NODE_AWAY, err=True))
