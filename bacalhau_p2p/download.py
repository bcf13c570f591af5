"""Content on its way from a node's HTTP API to a folder: checked as it comes, written out when whole.

Without I/O but for one temporary file, so that the asynchronous client and the command line share it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from bacalhau_p2p.content.car import CarReader, check_budget
from bacalhau_p2p.content.cid import CID
from bacalhau_p2p.content.export import Existing, Exported, export
from bacalhau_p2p.content.limits import DEFAULT_LIMITS, Limits
from bacalhau_p2p.content.reading import resolve
from bacalhau_p2p.errors import ContentNotFound, InvalidContent

CAR_TYPE = "application/vnd.ipld.car"


class Download:
    """The content of one CID, as a CAR brings it. A context manager: on exit the temporary file is gone.

    The sender is not trusted: each block is checked against its CID, blocks beyond the limits are
    refused while they come, and `export` finds out whether the DAG below `root` is complete.
    """

    def __init__(self, root: CID, *, path: Sequence[str] = (), limits: Limits = DEFAULT_LIMITS) -> None:
        """`path` leads below `root` to what is wanted; the CAR proves it with the blocks on the way."""
        root.require_fetchable()
        self.root = root
        self._path = tuple(path)
        self._limits = limits
        self._reader = CarReader()
        self._spool = tempfile.TemporaryFile(prefix="bacalhau-p2p-")  # noqa: SIM115 - closed by __exit__
        self._places: dict[CID, tuple[int, int]] = {}
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spool.close()

    def feed(self, data: bytes) -> None:
        """Take the next piece of the CAR. Raises InvalidContent, ContentTooLarge."""
        for cid, block in self._reader.feed(data):
            if cid.v1 in self._places:
                continue
            self._spool.seek(self._end)
            self._spool.write(block)
            self._places[cid.v1] = (self._end, len(block))
            self._end += len(block)
            check_budget(self._end, self._limits)

    def export(
        self,
        target: Path,
        *,
        symlinks: Literal["skip", "keep"] = "skip",
        existing: Existing = "refuse",
        checkpoint: Callable[[], None] = lambda: None,
    ) -> Exported:
        """Write what came to `target`. Raises as `content.export.export`; nothing is left then."""
        self._reader.finish()
        try:
            return export(
                resolve(self.root, self._path, self, self._limits).cid if self._path else self.root,
                target,
                self,
                limits=self._limits,
                symlinks=symlinks,
                existing=existing,
                checkpoint=checkpoint,
            )
        except ContentNotFound:
            raise InvalidContent(f"the node sent only a part of {self.root}") from None

    def get(self, cid: CID) -> bytes | None:
        place = self._places.get(cid.v1)
        if place is None:
            return None
        self._spool.seek(place[0])
        return self._spool.read(place[1])

    def size(self, cid: CID) -> int | None:
        place = self._places.get(cid.v1)
        return None if place is None else place[1]
