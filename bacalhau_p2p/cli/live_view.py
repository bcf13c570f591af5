"""What is shown of a job while it runs: a line for it, and one for each execution that moves. Pure.

It is made of the events of the job's history.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from bacalhau_p2p.cli.job_view import JSON, short_id
from bacalhau_p2p.cli.progress import progress_text
from bacalhau_p2p.cli.terminal import coloured, columns_of, cut, padded
from bacalhau_p2p.model.fetched_text import fetched_of
from bacalhau_p2p.model.quantities import duration
from bacalhau_p2p.runtime.text import printable

MAX_LINES = 10
"""Executions that are shown at a time."""

_SHOWN_AS = {
    "Accepted": "Accepted",
    "Preparing": "Preparing",
    "Running": "Running",
    "Proposed": "Publishing",
    "Verified": "Publishing",
    "Published": "Completed",
    "Rejected": "ResultRejected",
    "Failed": "Failed",
    "Lost": "Lost",
    "Cancelled": "Cancelled",
}
"""What an execution does after an event of this kind."""
_STATE_WIDTH = max(map(len, _SHOWN_AS.values()))
_OVER = frozenset({"Completed", "ResultRejected", "Failed", "Lost", "Cancelled"})


_BARS = (24, 10, 0)
"""Columns of a bar, as far as there is room."""


class _Fetched(NamedTuple):
    """How much of the inputs of an execution is on its node."""

    time: float
    """UNIX seconds when that was said."""
    done: int
    total: int
    rate: float
    """Bytes a second since it was said before; 0 if that is not known."""


@dataclass(slots=True)
class _Execution:
    node: str
    since: float
    """UNIX seconds: when it was accepted."""
    state: str = "Accepted"
    detail: str = ""
    ended: float | None = None
    fetched: _Fetched | None = None


class LiveView:
    """Takes the events of a job one by one, and says what to show."""

    def __init__(self, job_id: str) -> None:
        self._job_id = job_id
        self._state, self._detail = "Pending", ""
        self._since: float | None = None
        self._ended: float | None = None
        self._behind = float("inf")
        """Seconds by which the clock of the node is behind ours, or the message was on its way."""
        self._bids = 0
        self._executions: dict[str, _Execution] = {}
        self._wrote: set[str] = set()

    def take(self, event: JSON, now: float) -> None:
        """`now` is in UNIX seconds by the clock of this machine."""
        told: JSON = event.get("Event") or {}
        details: JSON = told.get("Details") or {}
        kind, time = str(event.get("Kind", "")), _seconds(event.get("Time"))
        message = " ".join(printable(str(told.get("Message") or ""), keep_lines=True).split())
        self._behind = min(self._behind, now - time)
        self._since = time if self._since is None else self._since
        if execution_id := str(event.get("ExecutionID") or ""):
            if kind == "Bid":
                self._bids, self._detail = self._bids + 1, ""
            self._take_execution(execution_id, kind, message, str(details.get("NodeID") or ""), time)
        else:
            self._state = str(details.get("NewState") or self._state)
            if kind != "Announced":  # what the job waits for is told once, and not again in each round
                self._detail = message if kind in ("Waiting", "Retried") else ""
            self._ended = time if kind == "Ended" else None

    def wrote(self, execution_id: str) -> None:
        """An execution has written something: so it runs, which its node says only every few seconds."""
        self._wrote.add(execution_id)
        found = self._executions.get(execution_id)
        if found is not None and found.state in ("Accepted", "Preparing"):
            found.state, found.detail = "Running", ""

    def _take_execution(self, execution_id: str, kind: str, message: str, node: str, time: float) -> None:
        state = _SHOWN_AS.get(kind)
        if state is None or (kind != "Accepted" and execution_id not in self._executions):
            return
        found = self._executions.setdefault(execution_id, _Execution(node, time))
        found.state = state
        found.detail = (
            message if state in ("Preparing", "ResultRejected", "Failed", "Lost", "Cancelled") else ""
        )
        found.ended = time if state in _OVER else None
        amounts = fetched_of(message) if state == "Preparing" else None
        found.fetched = None if amounts is None else _fetched(found.fetched, time, amounts)
        self._detail = ""
        if execution_id in self._wrote:
            self.wrote(execution_id)

    def lines(self, now: float, width: int, height: int) -> list[str]:
        """What to show on a terminal of this size: first the job, then what moves, or moved last."""
        now -= self._behind if self._since is not None else 0
        most = max(1, min(MAX_LINES, height - 3))
        listed = sorted(self._executions.items(), key=lambda item: item[1].ended or float("inf"))[-most:]
        shown = [self._job_line(now, width)]
        shown += [self._execution_line(name, each, now, width) for name, each in listed]
        if hidden := len(self._executions) - len(listed):
            shown.append(cut(f"  and {hidden} more", width))
        return shown

    def ended_lines(self, now: float, width: int) -> list[str]:
        """What stays on the screen: the line of each execution."""
        return self.lines(now, width, MAX_LINES + 3)[1:]

    def _job_line(self, now: float, width: int) -> str:
        start = f"Job {short_id(self._job_id)}  "
        since = now if self._since is None else self._since
        rest = f"  {duration((self._ended or now) - since)}"
        states = [each.state for each in self._executions.values()]
        if self._detail:
            rest += f"  {self._detail}"
        elif not states:
            rest += "  looking for nodes" + (
                f": {self._bids} bid{'s' * (self._bids > 1)}" if self._bids else ""
            )
        elif len(states) > 1:
            rest += "  " + ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        return printable(start) + _with_state(self._state, rest, width - columns_of(start))

    def _execution_line(self, name: str, execution: _Execution, now: float, width: int) -> str:
        start = f"  {printable(name[:8])} on {printable(execution.node[-8:])}  "
        width -= columns_of(start)
        rest = f"  {duration((execution.ended or now) - execution.since):>10}"
        if execution.fetched is not None and execution.detail:
            rest += _fitting_bar(execution.fetched, width - _STATE_WIDTH - columns_of(rest))
        elif execution.detail:
            rest += f"  {execution.detail}"
        return start + _with_state(padded(execution.state, _STATE_WIDTH), rest, width)


def _fetched(before: _Fetched | None, time: float, amounts: tuple[int, int]) -> _Fetched:
    """What is known of its inputs, now that these bytes of so many are there."""
    done, total = amounts
    more, seconds = (done - before.done, time - before.time) if before is not None else (0, 0.0)
    return _Fetched(time, done, total, more / seconds if seconds > 0 and more > 0 else 0.0)


def _fitting_bar(fetched: _Fetched, width: int) -> str:
    """How far it is, with the widest bar that leaves room for the rest."""
    texts = [progress_text(*fetched[1:], columns=columns) for columns in _BARS]
    return next((text for text in texts if columns_of(text) <= width), texts[-1])


def _with_state(state: str, rest: str, width: int) -> str:
    """A state in its colour, and what follows it, as far as it fits."""
    text = cut(printable(state) + rest, max(width, 0))
    return coloured(text[: len(state)], state.strip()) + text[len(state) :]


def _seconds(text: object) -> float:
    """UNIX seconds of a time of an event; 0 for what is none."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return 0.0
