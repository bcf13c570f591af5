"""Content on its way from a node's HTTP API to a folder: checked and written as it comes.

Without waiting for anything but the disk, so that the asynchronous client and the command line share it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from bacalhau_p2p.errors import ContentNotFound, InvalidContent
from bacalhau_p2p.ipfs.files.export import Existing, Exported
from bacalhau_p2p.ipfs.files.reader import resolve
from bacalhau_p2p.ipfs.files.unpack import Spool, Unpacking
from bacalhau_p2p.ipfs.format.car import CarReader
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.limits import DEFAULT_LIMITS, Limits
from bacalhau_p2p.model.api_errors import error_from_json


class Download:
    """The content of one CID, as a CAR brings it. A context manager: on exit nothing is left but what
    `finish` has put in place.

    The sender is not trusted: each block is checked against its CID, and nothing is put in place
    before all of the DAG is here and within the limits.
    """

    def __init__(
        self,
        root: CID,
        target: Path,
        *,
        path: Sequence[str] = (),
        limits: Limits = DEFAULT_LIMITS,
        symlinks: Literal["skip", "keep"] = "skip",
        existing: Existing = "refuse",
    ) -> None:
        """`path` leads below `root` to what is wanted; the CAR proves it with the blocks on the way.

        `target`, `symlinks` and `existing` are as for `export`. Raises InvalidContent for a codec or
        hash that is not handled here, ContentError where nothing can be written.
        """
        root.require_fetchable()
        self.root = root
        self._path = tuple(path)
        self._limits = limits
        self._reader = CarReader(accept_error=True)
        self._used = 0
        self._spool = Spool()
        self._unpack = partial(
            Unpacking,
            target=target,
            spool=self._spool,
            limits=limits,
            symlinks=symlinks,
            existing=existing,
        )
        self._unpacking: Unpacking | None = None if self._path else self._unpack(root)
        self._awaited: CID | None = root.v1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._unpacking is not None:
            self._unpacking.close()
        self._spool.close()

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next piece of the CAR.

        Raises InvalidContent, ContentTooLarge, ContentError; and whatever the node says that went wrong.
        """
        for cid, block in self._reader.feed(data):
            self._used += len(block)
            self._limits.check_transfer(self._used)
            if self._unpacking is not None:
                self._unpacking.take(cid, block)
            else:
                self._spool.put(cid, block)
                if cid.v1 == self._awaited:
                    self._find()

        if self._reader.error is not None:
            raise error_from_json(_decoded(self._reader.error), status=200)

    def _find(self) -> None:
        """See how far the path leads through the blocks that came: to its end, or to one that is awaited."""
        steps = _Steps(self._spool)
        try:
            place = resolve(self.root, self._path, steps, self._limits)
        except ContentNotFound:
            if steps.missing is None:
                raise
            self._awaited = steps.missing
        else:
            self._unpacking = self._unpack(place.cid)

    def finish(self, checkpoint: Callable[[], None] = lambda: None) -> Exported:
        """Put what came in its place. Raises as `Unpacking.finish`; nothing is left then."""
        self._reader.finish()
        if self._unpacking is None:
            raise InvalidContent(f"the node sent only a part of {self.root}")
        return self._unpacking.finish(checkpoint)


def _decoded(text: bytes) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


class _Steps:
    """Blocks of a spool, and which one was asked for in vain."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self.missing: CID | None = None

    def get(self, cid: CID) -> bytes | None:
        block = self._spool.get(cid)
        if block is None:
            self.missing = cid.v1
        return block

    def size(self, cid: CID) -> int | None:
        return self._spool.size(cid)
