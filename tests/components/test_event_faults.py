"""What a component remembers to tell a fault's story: `event_faults`."""

from __future__ import annotations

import gc
import logging
import weakref

from bacalhau_p2p.components.event_faults import STORY, EventFaults


class Event:
    """An event of an execution; weakly referenced, unlike those of the machines."""

    def __init__(self, execution_id: str) -> None:
        self.execution_id = execution_id


class Other(Event):
    """Another kind."""


def test_handled_events_are_not_kept():
    # Fifty messages of 10,000 executions each took 300 MB.
    faults, event = EventFaults(), Event("e-1")
    faults.handled(event)
    gone = weakref.ref(event)
    del event
    gc.collect()
    assert gone() is None


def test_the_story_has_the_latest_events_about_the_same_execution(caplog):
    caplog.set_level(logging.ERROR)
    faults = EventFaults()
    for event in (Event("forgotten"), *(Event("e-2") for _ in range(STORY - 3))):
        faults.handled(event)
    for event in (Event("e-1"), Event("e-2"), Other("e-1")):
        faults.handled(event)
    faults.dropped(Event("e-1"), "mallory", "Running", ValueError("broken"))
    faults.dropped(Event("forgotten"), "mallory", "Running", ValueError("broken"))
    first, second = caplog.records
    assert "story='Event > Other'" in first.getMessage()
    assert "story=''" in second.getMessage()
    assert faults.counts == {("Event", "mallory"): 2}
