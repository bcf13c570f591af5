"""Several publishers for one job: all of them, or the first that works."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import trio

from bacalhau_p2p.errors import Fault, InvalidJob, PublisherError
from bacalhau_p2p.model.base import ExecutionID, JobID
from bacalhau_p2p.model.execution import PublishedResult
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.params import ChainParams
from bacalhau_p2p.model.validation import read_params
from bacalhau_p2p.publishers.interface import Publisher
from bacalhau_p2p.runtime.tasks import all_or_first_fault

_Publish = Callable[[SpecConfig], Awaitable[PublishedResult]]

FALLBACK_TIMEOUT = 5 * 60.0
"""Seconds that `fallback` gives each publisher but the last."""


class ChainPublisher:
    """`{Type: fanout, Params: {Publishers: [{Type: ipfs}, {Type: s3, Params: {...}}]}}`, or `fallback`.

    `fanout` publishes to all at once, and fails when one fails. `fallback` tries them in order, and
    fails when all have failed. The location has the `CID`, all `Providers`, and in `Published` the
    location of each that worked.
    """

    def __init__(
        self,
        kind: Literal["fanout", "fallback"],
        publishers: Callable[[], Mapping[str, Publisher]],
        *,
        timeout: float = FALLBACK_TIMEOUT,
    ) -> None:
        """`publishers` gives the publishers of this node by type. `timeout`: seconds that `fallback`
        gives each publisher but the last."""
        self._kind = kind
        self._publishers = publishers
        self._timeout = timeout

    @property
    def type(self) -> str:
        return self._kind

    def faults(self, publisher: SpecConfig) -> list[Fault]:
        try:
            links = read_params(ChainParams, publisher).publishers
        except InvalidJob as error:
            return list(error.faults)
        known = self._publishers()
        found: list[Fault] = []
        for index, link in enumerate(links):
            path = f"Params.Publishers[{index}]"
            if link.type not in known:
                problem = f"this node has no {link.type} publisher"
                found.append(Fault(f"{path}.Type", problem, this_node_only=True))
            else:
                faults = known[link.type].faults(link)
                found += [replace(fault, path=f"{path}.{fault.path}") for fault in faults]
        return found

    async def unavailable(self) -> str | None:
        return None

    async def publish(
        self, publisher: SpecConfig, job_id: JobID, execution_id: ExecutionID, cid: str
    ) -> PublishedResult:
        """As `Publisher.publish`. A publisher that returns another CID has failed."""
        if faults := self.faults(publisher):
            raise PublisherError(f"publishing result {cid} failed: {faults[0]}")
        links = read_params(ChainParams, publisher).publishers

        async def publish_one(link: SpecConfig) -> PublishedResult:
            chosen = self._publishers()[link.type]
            if (reason := await chosen.unavailable()) is not None:
                raise PublisherError(reason)
            result = await chosen.publish(link, job_id, execution_id, cid)
            if result.cid != cid:
                raise PublisherError(f"published {result.cid} instead of {cid}")
            return result

        results = await (
            self._all(links, publish_one) if self._kind == "fanout" else self._first(links, publish_one)
        )
        found = (address for result in results for address in result.location.params.get("Providers", ()))
        params = {
            "CID": cid,
            "Providers": list(dict.fromkeys(found)),
            "Published": [result.location.to_wire() for result in results],
        }
        return PublishedResult(cid=cid, location=SpecConfig(type=self._kind, params=params))

    async def _all(self, links: Sequence[SpecConfig], publish_one: _Publish) -> list[PublishedResult]:
        async def publish(link: SpecConfig) -> PublishedResult:
            try:
                return await publish_one(link)
            except PublisherError as error:
                raise PublisherError(f"{link.type}: {error}", permanent=error.permanent) from error

        return await all_or_first_fault([partial(publish, link) for link in links], PublisherError)

    async def _first(self, links: Sequence[SpecConfig], publish_one: _Publish) -> list[PublishedResult]:
        failures: list[str] = []
        permanent = True
        for index, link in enumerate(links):
            last = index == len(links) - 1
            with trio.move_on_after(float("inf") if last else self._timeout):
                try:
                    return [await publish_one(link)]
                except PublisherError as error:
                    failures.append(f"{link.type}: {error}")
                    permanent = permanent and error.permanent
                    continue
            failures.append(f"{link.type}: took longer than {self._timeout:g} s")
            permanent = False
        raise PublisherError("; ".join(failures), permanent=permanent)
