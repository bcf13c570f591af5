"""The look at a job before a bid: are its inputs here, how much are they, and what do the owner's probes say?

Each look has its own task and its own time limit, and nothing else waits for it. What cannot be found out
in time is not known; only a policy that needs the answer makes that a refusal.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import trio

from bacalhau_p2p.compute.bidding import Findings
from bacalhau_p2p.compute.events import Examine, Examined, StopExamining
from bacalhau_p2p.compute.probes import Probe
from bacalhau_p2p.errors import BacalhauError, StorageError
from bacalhau_p2p.model.base import JobID, PeerID
from bacalhau_p2p.model.job import InputSource, SpecConfig
from bacalhau_p2p.model.quantities import MAX_BYTES
from bacalhau_p2p.runtime.logs import get_logger
from bacalhau_p2p.storage.interface import InputSize, StorageProvider

log = get_logger(__name__)

_T = TypeVar("_T")

LOOK_WITHIN = 2.0
"""Seconds for all inputs of a job together, in each of two looks: are they here, and how much are they."""
AT_ONCE = 32
"""Looks under way; a further one waits for its turn, within its own time."""
REMEMBERED = 1000
"""Sizes of inputs that are not here."""
REMEMBER_SIZE = 60.0
"""Seconds for which a size that was asked of others is not asked for again; the data may change."""
REMEMBER_UNKNOWN = 5.0
"""Seconds for which a size that could not be told is not asked for again."""


class Examiner:
    """Examines jobs for one node. `begin` and `stop` are for the task that drives its machine."""

    def __init__(
        self,
        storage: Mapping[str, StorageProvider],
        *,
        node_id: PeerID,
        local_data_only: bool = False,
        probes: Sequence[Probe] = (),
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        """`storage` are the providers by source type. With `local_data_only` a job is refused unless all of
        its inputs are here."""
        self._storage = storage
        self._node_id = node_id
        self._local_data_only = local_data_only
        self._probes = tuple(probes)
        self._clock = clock
        self._sizes = _Sizes(clock)
        self._turns = trio.Semaphore(AT_ONCE)
        self._looks: dict[tuple[PeerID, JobID], trio.CancelScope] = {}

    def begin(self, asked: Examine, nursery: trio.Nursery, tell: Callable[[Examined], None]) -> None:
        """Look at a job in a task of its own; `tell` gets the findings, unless `stop` comes first."""
        scope = self._looks[(asked.requester, asked.job_id)] = trio.CancelScope()
        nursery.start_soon(self._look, asked, scope, tell)

    def stop(self, unwanted: StopExamining) -> None:
        """End a look whose findings nobody wants any more."""
        scope = self._looks.pop((unwanted.requester, unwanted.job_id), None)
        if scope is not None:
            scope.cancel()

    async def _look(self, asked: Examine, scope: trio.CancelScope, tell: Callable[[Examined], None]) -> None:
        key = (asked.requester, asked.job_id)
        try:
            with scope:
                tell(Examined(*key, await self.examine(asked)))
        finally:
            if self._looks.get(key) is scope:
                del self._looks[key]

    async def examine(self, asked: Examine) -> Findings:
        """What there is to find out, within the time limits of inputs and probes."""
        inputs = asked.spec.task.input_sources
        if self._local_data_only and (refusal := await self._why_not_local(inputs)) is not None:
            return Findings(refusal=refusal)
        found: list[Findings] = []

        async def add(look: Callable[[], Awaitable[Findings]]) -> None:
            found.append(await look())
            if found[-1].refusal is not None:
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            if inputs:
                nursery.start_soon(add, lambda: self._measure(inputs, asked.requester))
            for probe in self._probes:
                nursery.start_soon(add, lambda probe=probe: self._ask(probe, asked))
        refused = next((each for each in found if each.refusal is not None), None)
        return refused or Findings(
            input_bytes=sum(each.input_bytes for each in found),
            local_input_bytes=sum(each.local_input_bytes for each in found),
            disk=sum(each.disk for each in found),
        )

    # --- the owner's probes -----------------------------------------------------------------------

    async def _ask(self, probe: Probe, asked: Examine) -> Findings:
        job = {"ID": asked.job_id, **asked.spec.model_dump(mode="json", by_alias=True)}
        who = {"NodeID": self._node_id, "RequesterID": asked.requester, "JobID": asked.job_id}
        return Findings(refusal=await probe.refusal(json.dumps({**who, "Job": job}).encode()))

    # --- inputs -----------------------------------------------------------------------------------

    async def _why_not_local(self, inputs: Sequence[InputSource]) -> str | None:
        here: dict[int, bool] = {}

        async def look(index: int, source: SpecConfig) -> None:
            provider = self._storage.get(source.type)
            if provider is not None:
                here[index] = await self._asked(provider.has_locally, source) or False

        await self._each(inputs, look)
        if unknown := [each.target for index, each in enumerate(inputs) if index not in here]:
            return f"could not find out within {LOOK_WITHIN:g} s whether it has {_listed(unknown)}"
        if absent := [each.target for index, each in enumerate(inputs) if not here[index]]:
            return f"runs only jobs whose inputs it has, and has not {_listed(absent)}"
        return None

    async def _measure(self, inputs: Sequence[InputSource], requester: PeerID) -> Findings:
        found: list[_Known] = []

        async def look(index: int, source: SpecConfig) -> None:
            provider = self._storage.get(source.type)
            if provider is not None:
                found.append(await self._size(provider, source, requester))

        await self._each(inputs, look)
        sizes = [known.size for known in found if known.size is not None]
        return Findings(
            refusal=next((known.refusal for known in found if known.refusal is not None), None),
            input_bytes=_total(size.total for size in sizes),
            local_input_bytes=_total(size.local for size in sizes),
            disk=_total(size.disk for size in sizes),
        )

    async def _size(self, provider: StorageProvider, source: SpecConfig, requester: PeerID) -> _Known:
        """From memory, as long as the input is not here."""
        key = _key(source)
        known = self._sizes.get(key)
        if known is not None and not await self._asked(provider.has_locally, source):
            return known

        async def ask(source: SpecConfig) -> _Known:
            try:
                return _Known(await provider.size(source, hints=(requester,)))
            except StorageError as error:
                return _Known(None, str(error))

        began = self._clock()
        try:
            known = await self._asked(ask, source) or _Known(None)
        except trio.Cancelled:
            if self._clock() - began > LOOK_WITHIN / 2:  # time is up; otherwise nobody wants to know any more
                self._sizes.put(key, _Known(None))
            raise
        self._sizes.put(key, known)
        return known

    async def _each(
        self, inputs: Sequence[InputSource], look: Callable[[int, SpecConfig], Awaitable[None]]
    ) -> None:
        """Look at all inputs at the same time, and at no more when time is up."""
        with trio.move_on_after(LOOK_WITHIN):
            async with self._turns, trio.open_nursery() as nursery:
                for index, each in enumerate(inputs):
                    nursery.start_soon(look, index, each.source)

    async def _asked(self, call: Callable[[SpecConfig], Awaitable[_T]], source: SpecConfig) -> _T | None:
        """A provider's answer; None when it has failed, however: no other job is to suffer from it."""
        try:
            return await call(source)
        except (BacalhauError, OSError) as error:
            log.info("input_not_examined", source=source.type, reason=str(error))
        except Exception:
            log.exception("adapter_fault", source=source.type)
        return None


@dataclass(frozen=True, slots=True)
class _Known:
    """What was found out about an input's size."""

    size: InputSize | None
    refusal: str | None = None


class _Sizes:
    """Sizes that others had to be asked for, for a while; those asked for longest ago go first."""

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
        lasts = REMEMBER_UNKNOWN if size is None and known.refusal is None else REMEMBER_SIZE
        self._known[key] = (self._clock() + lasts, known)
        self._known.move_to_end(key)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)


def _total(amounts: Iterable[int]) -> int:
    """What a bid can tell, whatever a provider says: sparse files are larger than any disk."""
    return min(sum(max(0, amount) for amount in amounts), MAX_BYTES)


def _key(source: SpecConfig) -> bytes:
    """By what a source is remembered: it may be long itself, and hold what is neither JSON nor sorted."""
    return hashlib.sha256(repr((source.type, source.params)).encode("utf-8", "surrogatepass")).digest()


def _listed(targets: Sequence[str]) -> str:
    """`the input /a`, or of many the first ones."""
    shown = ", ".join(targets[:3]) + (f" and {len(targets) - 3} more" if len(targets) > 3 else "")
    return f"the input{'s'[: len(targets) > 1]} {shown}"
