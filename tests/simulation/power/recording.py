"""Records the work of a small network: what it writes to disk, and what it promises to others, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import trio

from bacalhau_p2p.bprotocol.codec import Envelope, MessageID
from bacalhau_p2p.bprotocol.messages import Message
from bacalhau_p2p.runtime import database
from tests.simulation.checks.violation import require
from tests.simulation.power.history import NodeHistory, Promised
from tests.simulation.power.network import DATABASES, SmallNetwork
from tests.simulation.power.promises import Acknowledged, Promise, Sent, leaves_trace, takes_effect
from tests.simulation.power.recorder import Recorder
from tests.simulation.power.trace import Trace
from tests.simulation.services.deterministic import deterministic

CHECKPOINT = 30
"""Pages after which SQLite copies its log into the database. Its default of 1,000 is never reached here."""


@dataclass(slots=True)
class Recording:
    """Some work of a network, and its trace."""

    seed: int
    folder: Path
    entries: Sequence[object]

    def histories(self) -> list[NodeHistory]:
        """Of all nodes. Raises Violation: something was promised that no commit holds."""
        return [
            NodeHistory(node, str(self.folder / node / name), self.entries)
            for node, name in DATABASES.items()
        ]


def record(seed: int, folder: Path) -> Recording:
    """The work of a network in `folder`. Raises Violation: a promise was made too early, or a message that
    is acknowledged had no effect."""
    trace = Trace()
    messages: dict[MessageID, Message] = {}

    def promised(node: str, promise: Promise, by: Envelope | None) -> None:
        if by is not None and isinstance(promise, Sent):
            messages[promise.message_id] = by.message
        if isinstance(promise, Acknowledged) and not leaves_trace(messages.get(promise.message_id)):
            return
        trace.entries.append(Promised(node, promise, trio.current_time()))

    vfs = Recorder(trace, f"recorder-{id(trace)}")
    try:
        with (
            deterministic(seed) as clock,
            mock.patch.object(database, "connect", lambda path: vfs.connect(path, checkpoint=CHECKPOINT)),
        ):
            trio.run(SmallNetwork(folder, seed, promised).work, clock=clock)
    finally:
        vfs.unregister()
    recording = Recording(seed, folder, trace.entries)
    for history in recording.histories():
        _check_effects(history, messages)
    return recording


def _check_effects(history: NodeHistory, messages: Mapping[MessageID, Message]) -> None:
    for promise, floor in history.floors.items():
        if isinstance(promise, Acknowledged) and promise.message_id in messages:
            message = messages[promise.message_id]
            require(
                takes_effect(message, history.states[floor]),
                "what is acknowledged has its effect",
                f"{history.node} has marked a {message.kind} as processed without its effect",
            )
