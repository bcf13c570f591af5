"""A storage provider and a probe whose answers a test chooses, and jobs to inspect with them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from bacalhau_p2p.compute.events import Inspect
from bacalhau_p2p.compute.inspection import Inspector
from bacalhau_p2p.errors import Fault
from bacalhau_p2p.model.base import JobID, PeerID
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.storage.interface import InputSize

ALICE = PeerID("alice")


class FakeProvider:
    """Answers by the input's name: a value, an error, or a call."""

    def __init__(
        self,
        sizes: dict[str, object],
        local: dict[str, object] | None = None,
        faults: dict[str, list[Fault]] | None = None,
    ) -> None:
        self.sizes = sizes
        self.local = local or {}
        self.faults_of = faults or {}
        self.asked: list[str] = []
        """The inputs whose size was asked for, in order."""
        self.hints: set[PeerID] = set()

    async def input_faults(self, source: SpecConfig) -> list[Fault]:
        return self.faults_of.get(source.params["Name"], [])

    async def has_locally(self, source: SpecConfig) -> bool:
        return await _answer(self.local.get(source.params["Name"], False))

    async def size(self, source: SpecConfig, *, hints=()) -> InputSize | None:
        self.asked.append(source.params["Name"])
        self.hints |= set(hints)
        return await _answer(self.sizes[source.params["Name"]])

    async def part_size(self, source: SpecConfig, parts: int, *, hints=()) -> InputSize | None:
        self.asked.append(f"{source.params['Name']}/{parts}")
        return await _answer(self.sizes[source.params["Name"]])


class FakeProbe:
    """Refuses with `answer`, accepts if that is None, or answers by a call."""

    def __init__(self, answer: str | Callable[[], Awaitable[str | None]] | None) -> None:
        self.answer = answer
        self.questions: list[bytes] = []

    async def refusal(self, question: bytes) -> str | None:
        self.questions.append(question)
        return await _answer(self.answer)


async def _answer(value):
    await trio.lowlevel.checkpoint()
    if isinstance(value, Exception):
        raise value
    return await value() if callable(value) else value


def job(*names: str, job_id: str = "j-1", divided: str = "", count: int = 1) -> Inspect:
    """A job with these inputs; the one with the name `divided` is divided among `count` partitions."""
    params = {name: {"Name": name} for name in names}
    if divided:
        params[divided]["Partition"] = {"Type": "object"}
    sources = [{"Target": f"/{name}", "Source": {"Type": "fake", "Params": params[name]}} for name in names]
    task = {"Engine": {"Type": "noop"}, "InputSources": sources}
    spec = job_from_mapping({"Count": count, "Tasks": [task]})
    return Inspect(ALICE, JobID(job_id), spec)


def inspector(provider: FakeProvider, *, probes=(), **options) -> Inspector:
    return Inspector({"fake": provider}, node_id=PeerID("me"), probes=probes, **options)
