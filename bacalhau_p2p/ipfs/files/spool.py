"""Blocks that are put aside: in memory, or in a temporary file when they are many."""

from __future__ import annotations

import tempfile

from bacalhau_p2p.ipfs.format.cid import CID

_MAX_MEMORY = 4 * 1024 * 1024


class BlockSpool:
    """A block source for one thread. The caller closes it."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(_MAX_MEMORY, prefix="bacalhau-p2p-")  # noqa: SIM115
        self._extents: dict[CID, tuple[int, int]] = {}
        self._end = 0

    def put(self, cid: CID, block: bytes) -> None:
        """Keep a block whose hash is verified."""
        if cid.v1 in self._extents:
            return
        self._file.seek(self._end)
        self._file.write(block)
        self._extents[cid.v1] = (self._end, len(block))
        self._end += len(block)

    def get(self, cid: CID) -> bytes | None:
        extent = self._extents.get(cid.v1)
        if extent is None:
            return None
        self._file.seek(extent[0])
        return self._file.read(extent[1])

    def size(self, cid: CID) -> int | None:
        extent = self._extents.get(cid.v1)
        return None if extent is None else extent[1]

    def close(self) -> None:
        self._file.close()
