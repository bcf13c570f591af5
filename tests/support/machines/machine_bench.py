"""A machine and its clock: a test is everything around it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bacalhau_p2p.bprotocol.messages import Message
from bacalhau_p2p.components.protocol import Machine, Send, TimePassed


class FixedRandom:
    """A generator that always gives the same number."""

    def __init__(self, number: float) -> None:
        self._number = number

    def random(self) -> float:
        return self._number


class MachineBench:
    """A machine, its clock, and every action that it has asked for."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.now = 0.0
        self.done: list[Any] = []

    def handle(self, event: Any) -> list[Any]:
        """Handle an event now, and return the actions."""
        actions = list(self.machine.handle(event, self.now))
        self.done += actions
        return actions

    def wait(self, seconds: float) -> list[Any]:
        """Let time pass, stopping at every deadline."""
        end, actions = self.now + seconds, []
        while (due := self.machine.next_deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            actions += self.handle(TimePassed())
        self.now = end
        return actions


def messages_in(actions: Iterable[Any]) -> list[Message]:
    """The messages to single peers, in order."""
    return [action.message for action in actions if isinstance(action, Send)]
