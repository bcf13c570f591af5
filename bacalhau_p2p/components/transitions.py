"""Rows of transition tables: both machines change the state of a record by a row, and in no other way."""

from __future__ import annotations

from typing import Generic, TypeVar

State = TypeVar("State")
Action = TypeVar("Action")


class InvalidTransition(Exception):
    """The table has no row for this event in this state. This is a bug in our code, never a peer's fault."""

    def __init__(self, record_id: str, state: str | None, event: object) -> None:
        super().__init__(f"{record_id} is {state}, and the table has no row for {event!r}")


class Row(Generic[State, Action]):
    """What an event does to a record: the next state, and the actions that follow, in order."""

    __slots__ = ("actions", "to")

    def __init__(self, to: State, *actions: Action) -> None:
        self.to = to
        self.actions = actions
