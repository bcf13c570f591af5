"""A file or folder on disk as a CAR stream, for uploads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bacalhau_p2p.ipfs.files.importer import Added, Symlinks, iterate_blocks
from bacalhau_p2p.ipfs.format.car import batches, header, section_head
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.profiles import DEFAULT_PROFILE, Profile

_PIECE_SIZE = 512 * 1024
"""Bytes of the pieces of the stream, or a little more."""


class Packed:
    """A file or folder on disk as a CAR without roots in its header, leaves first and the root last.

    Iterating reads the path once, yields small blocks together, and raises as `importer.build`.
    """

    def __init__(
        self,
        path: Path,
        *,
        profile: Profile = DEFAULT_PROFILE,
        hidden: bool = False,
        programs: bool = False,
        symlinks: Symlinks = "keep",
    ) -> None:
        """`hidden`, `programs` and `symlinks` as for `importer.build`."""
        self.added: Added | None = None
        """Set at the end of the iteration."""
        self._path = path
        self._profile = profile
        self._hidden = hidden
        self._programs = programs
        self._symlinks: Symlinks = symlinks

    @property
    def root(self) -> CID | None:
        """Known at the end of the iteration."""
        return None if self.added is None else self.added.cid

    def __iter__(self) -> Iterator[bytes]:
        return batches(self._pieces(), _PIECE_SIZE)

    def _pieces(self) -> Iterator[bytes]:
        yield header([])
        written: set[CID] = set()
        blocks = iterate_blocks(
            self._path,
            profile=self._profile,
            hidden=self._hidden,
            programs=self._programs,
            symlinks=self._symlinks,
        )
        while True:
            try:
                cid, block = next(blocks)
            except StopIteration as end:
                self.added = end.value
                return
            if cid not in written:
                written.add(cid)
                yield section_head(cid, block)
                yield block
