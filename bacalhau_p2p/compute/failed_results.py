"""What failed runs left in their result paths: kept for a day if their jobs ask for it, within limits.

It is content like a result: pinned in this node's block store, and found by its CID, which only the requester
is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import trio

from bacalhau_p2p.compute.record import ComputeExecution
from bacalhau_p2p.errors import ContentError, ExecutorError
from bacalhau_p2p.executors.output_limits import OutputLimits, Outputs, take_outputs
from bacalhau_p2p.ipfs.content.content import Content
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.store import pin_owners
from bacalhau_p2p.model.base import PeerID, UnixSeconds
from bacalhau_p2p.runtime.logs import get_logger

log = get_logger(__name__)

KEEP_FOR = 24 * 3600.0
"""Seconds for which the outputs of a failed run are kept."""
MAX_KEPT = 500
"""Failed runs whose outputs are kept, of all requesters. Who has most of them loses its oldest."""
SHARE_OF_DISK = 8
"""One in so many bytes of the disk for jobs may be kept, of all requesters; of one run a quarter of that."""


class FailedResults:
    """The outputs of failed runs on one node."""

    def __init__(self, content: Content, clock: Callable[[], UnixSeconds], *, disk: int) -> None:
        """`disk`: bytes of disk for jobs."""
        self._content = content
        self._clock = clock
        self._most = disk // SHARE_OF_DISK
        self._kept: dict[str, tuple[PeerID, CID, int, UnixSeconds]] = {}
        """By owner of the pin, the oldest first."""
        self._loaded = False
        self._loading = trio.Lock()

    async def keep(self, execution: ComputeExecution, results: Path) -> str:
        """Pin the results folder of a run that has failed; its CID, or nothing if it cannot be kept."""
        outputs = {each.path: results / each.name for each in execution.spec.task.result_paths}
        folders = {path: folder for path, folder in outputs.items() if folder.is_dir()}
        if not folders:
            return ""
        owner = pin_owners.failed(execution.requester_id, execution.id)
        try:
            await self._load()
            await take_outputs(Outputs(folders), OutputLimits(size=max(1, self._most // 4)), streams=0)
            added = await self._content.add(results, pin_owner=owner)
            expires = self._clock() + KEEP_FOR
            await self._content.pin(added.cid, owner, expires)
            self._kept[owner] = execution.requester_id, added.cid, added.size, expires
            await self._prune()
        except (ContentError, ExecutorError, OSError) as error:
            log.warning("failed_result_not_kept", execution=execution.id, reason=str(error))
            return ""
        return str(added.cid) if owner in self._kept else ""

    async def _load(self) -> None:
        """Find what earlier processes kept."""
        async with self._loading:
            if self._loaded:
                return
            for pin in await self._content.pins():
                if (requester := pin_owners.requester_of_failed(pin.owner)) is None:
                    continue
                if pin.expires is None:  # its process ended before it could say how long
                    await self._content.unpin(pin.cid, pin.owner)
                else:
                    size = await self._content.size(pin.cid)
                    self._kept[pin.owner] = PeerID(requester), pin.cid, size, pin.expires
            self._kept = dict(sorted(self._kept.items(), key=lambda item: item[1][3]))
            self._loaded = True

    async def _prune(self) -> None:
        """Unpin what is too much."""
        for owner, cid in self._take_surplus():
            await self._content.unpin(cid, owner)

    def _take_surplus(self) -> list[tuple[str, CID]]:
        """Forget what has expired, and what is too much, which is to be unpinned. All at once: several runs
        may fail at the same time."""
        now = self._clock()
        self._kept = {owner: kept for owner, kept in self._kept.items() if kept[3] > now}
        overhead = max(1, self._most // MAX_KEPT)  # a small one counts, too
        sizes: Counter[PeerID] = Counter()
        for requester, _, size, _ in self._kept.values():
            sizes[requester] += size + overhead
        surplus: list[tuple[str, CID]] = []
        while len(self._kept) > MAX_KEPT or sum(kept[2] for kept in self._kept.values()) > self._most:
            most = max(sizes, key=lambda requester: sizes[requester])
            owner, (_, cid, size, _) = next(item for item in self._kept.items() if item[1][0] == most)
            del self._kept[owner]
            sizes[most] -= size + overhead
            surplus.append((owner, cid))
        return surplus
