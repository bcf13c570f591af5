"""Finds out about a job's inputs before a bid: are they local, how large are they, would this node take them?

The providers of a node answer, within a time limit. What they do not answer in time is unknown.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import trio

from bacalhau_p2p.components.adapter_calls import call_adapter, expected, expected_faults, reason_of
from bacalhau_p2p.compute.bidding import Findings
from bacalhau_p2p.errors import ExecutionError, StorageError
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.job import InputSource, SpecConfig
from bacalhau_p2p.model.partitions import is_divided
from bacalhau_p2p.model.quantities import MAX_BYTES
from bacalhau_p2p.runtime.logs import get_logger
from bacalhau_p2p.storage.interface import InputSize, StorageProvider

log = get_logger(__name__)

_T = TypeVar("_T")

ANSWER_TIMEOUT = 2.0
"""Seconds for all inputs of a job together, for each of two questions: are they local, how large are they."""
MAX_CONCURRENT = 32
"""Jobs whose inputs are inspected at the same time; further ones wait, within their own time limit."""
MAX_REMEMBERED = 1000
"""Inputs in the cache of sizes."""
REMEMBER_SIZE_FOR = 60.0
"""Seconds for which a size is cached; the data may change."""
REMEMBER_UNKNOWN_FOR = 5.0
"""Seconds for which an unknown size is cached."""


class InputInspector:
    """Asks the storage providers of one node."""

    def __init__(self, storage: Mapping[str, StorageProvider], clock: Callable[[], float]) -> None:
        """`storage` are the providers by source type."""
        self._storage = storage
        self._clock = clock
        self._sizes = _SizeCache(clock)
        self._turns = trio.Semaphore(MAX_CONCURRENT)

    async def why_not_local(self, inputs: Sequence[InputSource]) -> str | None:
        """Why a node for local data refuses the job, or None if all inputs are local."""
        local: dict[int, bool] = {}

        async def ask(index: int, source: SpecConfig, provider: StorageProvider) -> None:
            local[index] = await _answer(partial(provider.has_locally, source), source) is True

        await self._ask_about_each(inputs, ask)
        if unknown := [each.target for index, each in enumerate(inputs) if index not in local]:
            verb = "are" if len(unknown) > 1 else "is"
            return f"could not find out within {ANSWER_TIMEOUT:g} s whether {_listed(unknown)} {verb} local"
        if missing := [each.target for index, each in enumerate(inputs) if not local[index]]:
            verb = "are" if len(missing) > 1 else "is"
            return f"runs only jobs whose inputs are local; {_listed(missing)} {verb} missing"
        return None

    async def measure(
        self, inputs: Sequence[InputSource], requester: PeerID, *, partitions: int = 1
    ) -> Findings:
        """The sizes of all inputs, or why this node would not take one of them. Of one that is divided among
        so many partitions, the size of the largest part."""
        known: dict[int, _Known] = {}

        async def ask(index: int, source: SpecConfig, provider: StorageProvider) -> None:
            known[index] = await self._size(provider, source, requester, partitions)

        await self._ask_about_each(inputs, ask)
        sizes = [each.size for each in known.values() if each.size is not None]
        refused = [known[index].why_refused(index) for index in sorted(known) if known[index].refused]
        return Findings(
            refusal=refused[0] if refused else None,
            input_bytes=_total(size.total for size in sizes),
            local_input_bytes=_total(size.local for size in sizes),
            disk=_total(size.disk for size in sizes),
            unsized=len(sizes) < len(inputs),
            sizes=tuple([_size_of(known.get(index)) for index in range(len(inputs))]),
        )

    async def _size(
        self, provider: StorageProvider, source: SpecConfig, requester: PeerID, partitions: int
    ) -> _Known:
        """From the cache, as long as the input is not local."""
        parts = partitions if is_divided(source.params) else 1
        key = _key(source, parts)
        known = self._sizes.get(key)
        if known is not None and await _answer(partial(provider.has_locally, source), source) is not True:
            return known
        began = self._clock()
        try:
            asked = partial(_ask_for_size, provider, source, parts, requester)
            known = await _answer(asked, source) or _UNKNOWN
        except trio.Cancelled:
            if self._clock() - began > ANSWER_TIMEOUT / 2:  # otherwise the inspection was stopped
                self._sizes.put(key, _UNKNOWN)
            raise
        self._sizes.put(key, known)
        return known

    async def _ask_about_each(
        self,
        inputs: Sequence[InputSource],
        ask: Callable[[int, SpecConfig, StorageProvider], Awaitable[None]],
    ) -> None:
        """Ask about all inputs at the same time, until the time is up."""
        with trio.move_on_after(ANSWER_TIMEOUT):
            async with self._turns, trio.open_nursery() as nursery:
                for index, each in enumerate(inputs):
                    if (provider := self._storage.get(each.source.type)) is not None:
                        nursery.start_soon(ask, index, each.source, provider)


async def _ask_for_size(
    provider: StorageProvider, source: SpecConfig, parts: int, requester: PeerID
) -> _Known:
    if faults := expected_faults(await provider.input_faults(source), "input inspection"):
        return _Known(None, fault=str(faults[0]))
    try:
        if parts > 1:
            size = await provider.part_size(source, parts, hints=(requester,))
        else:
            size = await provider.size(source, hints=(requester,))
    except StorageError as error:
        return _Known(None, refusal=reason_of(error))
    if size is not None:
        expected(size, InputSize, "input inspection")
        for amount in (size.total, size.local, size.disk):
            expected(amount, int, "input inspection")
    return _Known(size)


async def _answer(call: Callable[[], Awaitable[_T]], source: SpecConfig) -> _T | None:
    """A provider's answer; None when the provider failed, which says nothing about the job."""
    try:
        return await call_adapter("input inspection", call, source=source.type)
    except ExecutionError as error:
        log.info("input_not_inspected", source=source.type, reason=str(error))
        return None


@dataclass(frozen=True, slots=True)
class _Known:
    """What was found out about an input."""

    size: InputSize | None
    refusal: str | None = None
    """Why this node would not take so much."""
    fault: str | None = None
    """What is wrong with the input on this node, by a path within its source."""

    @property
    def refused(self) -> bool:
        return self.refusal is not None or self.fault is not None

    def why_refused(self, index: int) -> str | None:
        """The reason, for the input of this index."""
        return f"Tasks[0].InputSources[{index}].Source.{self.fault}" if self.fault else self.refusal


_UNKNOWN = _Known(None)


class _SizeCache:
    """The sizes of inputs that are not local, for a while; the oldest go first."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[float, _Known]] = OrderedDict()

    def get(self, key: bytes) -> _Known | None:
        ends, known = self._known.get(key, (0.0, None))
        return known if self._clock() < ends else None

    def put(self, key: bytes, known: _Known) -> None:
        size = known.size
        if size is not None and size.local == size.total:
            self._known.pop(key, None)
            return
        unknown = size is None and not known.refused
        lasts = REMEMBER_UNKNOWN_FOR if unknown else REMEMBER_SIZE_FOR
        self._known[key] = (self._clock() + lasts, known)
        self._known.move_to_end(key)
        if len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)


def _size_of(known: _Known | None) -> tuple[int, int] | None:
    if known is None or known.size is None:
        return None
    return _total([known.size.total]), _total([known.size.local])


def _total(amounts: Iterable[int]) -> int:
    """The sum, within what a bid can say: a provider may report more, as sparse files can."""
    return min(sum(max(0, amount) for amount in amounts), MAX_BYTES)


def _key(source: SpecConfig, parts: int) -> bytes:
    """What a source is remembered by: it may be long, and hold what is neither JSON nor sorted."""
    return hashlib.sha256(repr((source.type, source.params, parts)).encode("utf-8", "surrogatepass")).digest()


def _listed(targets: Sequence[str]) -> str:
    """`/a, /b`, or the first ones of many."""
    return ", ".join(targets[:3]) + (f" and {len(targets) - 3} more" if len(targets) > 3 else "")
