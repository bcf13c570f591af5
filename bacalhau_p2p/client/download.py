"""Content on its way from a node's HTTP API to disk: verified and written as it arrives.

Waits for nothing but the disk, so that `AsyncConnection` and `BlockingConnection` share it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import quote

from bacalhau_p2p.client.calls import FETCH_TIMEOUT, GATEWAY, Call
from bacalhau_p2p.errors import ContentNotFound, InvalidContent, PathNotFound
from bacalhau_p2p.ipfs.files.export import Exported
from bacalhau_p2p.ipfs.files.reader import resolve
from bacalhau_p2p.ipfs.files.spool import BlockSpool
from bacalhau_p2p.ipfs.files.staging import Existing
from bacalhau_p2p.ipfs.files.unpack import Unpacker
from bacalhau_p2p.ipfs.format.block_source import TrackedSource
from bacalhau_p2p.ipfs.format.car import CAR_MEDIA_TYPE, CarReader
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.limits import DEFAULT_LIMITS, Limits


def car_call(root: CID, path: Sequence[str], providers: Sequence[str]) -> Call[None]:
    """The request for the CAR of what is at `path` below `root`."""
    names = (quote(name, safe="") for name in (str(root), *path))
    return Call(
        method="GET",
        path="/".join((GATEWAY, *names)),
        query=[("format", "car"), *(("provider", address) for address in providers)],
        accept=CAR_MEDIA_TYPE,
        wait=FETCH_TIMEOUT,
        read=lambda response: None,
    )


class Download:
    """The content of one CID, received as a CAR. A context manager: on exit nothing is left on disk but
    what `finish` has put in place.

    The node is not trusted: each block is verified against its CID, and nothing is put in place before
    the whole DAG has arrived and is within the limits.
    """

    def __init__(
        self,
        root: CID,
        target: Path,
        *,
        path: Sequence[str] = (),
        providers: Sequence[str] = (),
        limits: Limits = DEFAULT_LIMITS,
        symlinks: Literal["skip", "keep"] = "skip",
        existing: Existing = "refuse",
    ) -> None:
        """`path` leads from `root` to the wanted content; the CAR includes the blocks on the way as proof.

        `providers` are multiaddrs of peers that may have the content. `target`, `symlinks` and
        `existing` are as for `export`. Raises InvalidContent for an unsupported codec or hash function,
        ContentError when `target` exists or cannot be written.
        """
        root.require_fetchable()
        self.root = root
        self.received = 0
        """Bytes of the CAR so far."""
        self._path = tuple(path)
        self._providers = tuple(providers)
        self._limits = limits
        self._reader = CarReader(accept_error=True)
        self._used = 0
        self._spool = BlockSpool()
        self._unpack = partial(
            Unpacker,
            target=target,
            spool=self._spool,
            limits=limits,
            symlinks=symlinks,
            existing=existing,
        )
        self._unpacking: Unpacker | None = None if self._path else self._unpack(root)
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

    @property
    def call(self) -> Call[None]:
        """The request for the CAR. The body of a successful response goes to `feed`."""
        return car_call(self.root, self._path, self._providers)

    def expect(self, size: int) -> None:
        """Take the size that the node announces. Raises ContentTooLarge before anything is transferred."""
        self._limits.check_bytes(size)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next piece of the CAR.

        Raises InvalidContent, ContentTooLarge, ContentError, and the error with which the node ends the CAR.
        """
        self.received += len(data)
        for cid, block in self._reader.feed(data):
            self._used += len(block)
            self._limits.check_transfer(self._used)
            if self._unpacking is not None:
                self._unpacking.add(cid, block)
            else:
                self._spool.put(cid, block)
                if cid.v1 == self._awaited:
                    self._find()

        if self._reader.error is not None:
            raise self.call.error(200, self._reader.error)

    def _find(self) -> None:
        """Follow the path through the blocks so far: to its end, or to a block that has yet to arrive."""
        blocks = TrackedSource(self._spool)
        try:
            place = resolve(self.root, self._path, blocks, self._limits)
        except PathNotFound:
            raise
        except ContentNotFound:
            self._awaited = blocks.missing
        else:
            self._unpacking = self._unpack(place.cid)

    def finish(self, checkpoint: Callable[[], None] = lambda: None) -> Exported:
        """Put the content in place. Raises as `Unpacker.finish`; then nothing is left on disk."""
        self._reader.finish()
        if self._unpacking is None:
            raise InvalidContent(f"incomplete response: the node sent only part of {self.root}")
        return self._unpacking.finish(checkpoint)
