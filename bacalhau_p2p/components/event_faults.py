"""What a component could not handle: counted by kind and author, and logged with what led to it."""

from __future__ import annotations

from collections import Counter, deque

from bacalhau_p2p.runtime.logs import get_logger
from bacalhau_p2p.runtime.text import printable

log = get_logger(__name__)

MAX_COUNTED = 1000
"""Pairs of a kind of event and an author that are counted apart; further ones count together."""
STORY = 50
"""Handled events that are remembered to tell what led to a fault."""
MAX_SHOWN = 500
"""Characters of an event in the log."""

OTHERS = ("other", "others")
"""The pair that counts what is beyond `MAX_COUNTED`."""


class EventFaults:
    """The faults of one component."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        """Events that were dropped, by their kind and their author, who is "" for this node."""
        self._handled: deque[tuple[str, tuple[object, ...]]] = deque(maxlen=STORY)

    def handled(self, event: object) -> None:
        """Remember the kind of an event and whom it was about, for the stories of later ones. Not the event:
        strangers choose how large that is."""
        concerned = getattr(event, "message", event)
        execution = getattr(concerned, "execution", concerned)
        about = (getattr(execution, "job_id", None), getattr(concerned, "execution_id", None))
        self._handled.append((type(concerned).__name__, about))

    def dropped(self, event: object, author: str, state: str, error: BaseException) -> None:
        """Count and log an event that raised. `state` is that of what it concerns."""
        kind = _kind(event)
        self.count(kind, author)
        log.error(
            "event_dropped",
            kind=kind,
            author=author,
            state=state,
            error=f"{type(error).__name__}: {shown(error)}",
            dropped=shown(event),
            story=self._story_of(event),
            exc_info=error,
        )

    def count(self, kind: str, author: str = "") -> None:
        key = (kind, author)
        self.counts[key if key in self.counts or len(self.counts) < MAX_COUNTED else OTHERS] += 1

    def _story_of(self, event: object) -> str:
        """The kinds of the latest events about the same job or execution."""
        ids = ids_of(event)
        return " > ".join(kind for kind, about in self._handled if not ids.isdisjoint(about))


def _kind(event: object) -> str:
    return type(getattr(event, "message", event)).__name__


def ids_of(event: object) -> set[str]:
    """The ids of the jobs and executions that an event names itself."""
    concerned = (event, getattr(event, "message", None), getattr(event, "execution", None))
    found = {getattr(each, name, None) for each in concerned for name in ("job_id", "execution_id")}
    return {each for each in found if isinstance(each, str)}


def shown(value: object) -> str:
    """A text of limited length that is safe in a log, whatever the value is."""
    try:
        return printable(str(value)[:MAX_SHOWN])
    except Exception as error:  # noqa: BLE001 - it came from a stranger
        return f"{type(value).__name__} that cannot be shown: {type(error).__name__}"
