"""The bytes of one file while its blocks arrive from a node's HTTP API, each verified against its CID.

Waits for nothing but the disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from bacalhau_p2p.client.calls import Call
from bacalhau_p2p.client.download import car_call
from bacalhau_p2p.errors import ContentNotFound, InvalidContent, PathNotFound
from bacalhau_p2p.ipfs.files.reader import read_file, resolve
from bacalhau_p2p.ipfs.files.spool import BlockSpool
from bacalhau_p2p.ipfs.format.block_source import TrackedSource
from bacalhau_p2p.ipfs.format.car import CarReader
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.limits import DEFAULT_LIMITS, Limits
from bacalhau_p2p.ipfs.format.unixfs import File


class FileStream:
    """A file at `path` below `root`. A context manager: on exit what it put aside on disk is gone.

    Blocks stay on disk until then, because a file may repeat a block that is sent once.
    """

    def __init__(
        self,
        root: CID,
        *,
        path: Sequence[str] = (),
        providers: Sequence[str] = (),
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """`providers` are multiaddrs of peers that may have it. Raises InvalidContent for an unsupported
        codec or hash function."""
        root.require_fetchable()
        self._root = root
        self._path = tuple(path)
        self._providers = tuple(providers)
        self._limits = limits
        self._reader = CarReader(accept_error=True)
        self._spool = BlockSpool()
        self._blocks = TrackedSource(self._spool)
        self._awaited: CID | None = root.v1
        self._file: CID | None = None
        self._used = 0
        self._position = 0
        self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spool.close()

    @property
    def call(self) -> Call[None]:
        """The request for the CAR. The body of a successful response goes to `feed`."""
        return car_call(self._root, self._path, self._providers)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take the next piece of the CAR. Yields what can be read of the file now.

        Raises InvalidContent, ContentTooLarge, PathNotFound, and the error with which the node ends the CAR.
        """
        for cid, block in self._reader.feed(data):
            self._used += len(block)
            self._limits.check_transfer(self._used)
            self._spool.put(cid, block)
            if cid.v1 == self._awaited:
                yield from self._readable()
        if self._reader.error is not None:
            raise self.call.error(200, self._reader.error)

    def finish(self) -> None:
        """Raises InvalidContent when the response has ended before the file."""
        self._reader.finish()
        if not self._ended:
            raise InvalidContent(f"incomplete response: the node sent only part of {self._root}")

    def _readable(self) -> Iterator[bytes]:
        """From the position on, up to a block that has yet to arrive."""
        try:
            if self._file is None:
                place = resolve(self._root, self._path, self._blocks, self._limits)
                if not isinstance(place.node, File):
                    raise InvalidContent(f"{'/'.join((str(self._root), *self._path))} is not a file")
                self._file = place.cid
            for piece in read_file(self._file, self._blocks, self._position, limits=self._limits):
                self._position += len(piece)
                yield piece
        except PathNotFound:
            raise
        except ContentNotFound:
            self._awaited = self._blocks.missing
        else:
            self._awaited, self._ended = None, True
