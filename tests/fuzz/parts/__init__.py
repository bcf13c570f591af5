"""The parts that are fuzzed, by name."""

from __future__ import annotations

from collections.abc import Callable

from tests.fuzz.campaign import Part
from tests.fuzz.parts.content import Content
from tests.fuzz.parts.jobs import Jobs
from tests.fuzz.parts.machines import ComputeNode, Requester
from tests.fuzz.parts.messages import Messages
from tests.fuzz.parts.specs import Specs
from tests.fuzz.parts.streams import Streams

PARTS: dict[str, Callable[[], Part]] = {
    "messages": Messages,
    "requester": Requester,
    "compute": ComputeNode,
    "jobs": Jobs,
    "content": Content,
    "specs": Specs,
    "streams": Streams,
}
