"""Files and folders on disk as a CAR stream, for uploads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bacalhau_p2p.ipfs.files.importer import DEFAULT_PROFILE, Profile, iterate_blocks
from bacalhau_p2p.ipfs.format.car import batches, header, section_head
from bacalhau_p2p.ipfs.format.cid import CID

_PIECE = 512 * 1024
"""Bytes of the pieces that a path is packed into, or a little more."""


class Packed:
    """A file or folder on disk as a CAR without roots, its blocks leaves first and its root last.

    The path is read once, as the pieces are taken, and small blocks come together.
    Iterating raises as `importer.build`.
    """

    def __init__(self, path: Path, *, profile: Profile = DEFAULT_PROFILE) -> None:
        self.root: CID | None = None
        """Known when all pieces were taken."""
        self._path = path
        self._profile = profile

    def __iter__(self) -> Iterator[bytes]:
        return batches(self._pieces(), _PIECE)

    def _pieces(self) -> Iterator[bytes]:
        yield header([])
        written: set[CID] = set()
        cid: CID | None = None
        for cid, block in iterate_blocks(self._path, profile=self._profile):
            if cid not in written:
                written.add(cid)
                yield section_head(cid, block)
                yield block
        self.root = cid
