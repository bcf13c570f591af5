"""A DAG to files on disk while its blocks are still coming.

What comes depth first goes straight into its file. A block that is used again comes only once: its
further uses wait until everything is there and was added up, so that what is written before is
never more than what came, however much the DAG expands to.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Self

from bacalhau_p2p.errors import InvalidContent
from bacalhau_p2p.ipfs.files.export import Existing, Exported, Scratch, writing
from bacalhau_p2p.ipfs.files.layout import Placing, Written
from bacalhau_p2p.ipfs.format.block_source import BlockSource
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.format.dag_stat import dag_stat
from bacalhau_p2p.ipfs.format.limits import DEFAULT_LIMITS, Limits

_SPOOL_MEMORY = 4 * 1024 * 1024


class Spool:
    """Blocks that are put aside, in memory, or where they are many in a temporary file."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(_SPOOL_MEMORY, prefix="bacalhau-p2p-")  # noqa: SIM115
        self._places: dict[CID, tuple[int, int]] = {}
        self._end = 0

    def put(self, cid: CID, block: bytes) -> None:
        """Keep a block whose hash was checked."""
        if cid.v1 in self._places:
            return
        self._file.seek(self._end)
        self._file.write(block)
        self._places[cid.v1] = (self._end, len(block))
        self._end += len(block)

    def get(self, cid: CID) -> bytes | None:
        place = self._places.get(cid.v1)
        if place is None:
            return None
        self._file.seek(place[0])
        return self._file.read(place[1])

    def size(self, cid: CID) -> int | None:
        place = self._places.get(cid.v1)
        return None if place is None else place[1]

    def close(self) -> None:
        self._file.close()


class Unpacking:
    """The DAG below `root`, which is being written to `target`. A context manager: on exit there is
    nothing left but what `finish` has put in place.

    Blocks may come in any order; one that comes before its turn is put aside.
    """

    def __init__(
        self,
        root: CID,
        target: Path,
        spool: Spool,
        *,
        limits: Limits = DEFAULT_LIMITS,
        symlinks: Literal["skip", "keep"] = "skip",
        existing: Existing = "refuse",
    ) -> None:
        """`symlinks` and `existing` are as for `export`; `spool`, which may hold blocks already, stays
        the caller's. Raises as `Scratch`."""
        self._root = root.v1
        self._target = target
        self._limits = limits
        self._spool = spool
        self._scratch = Scratch(target, existing)
        self._placing = Placing(
            self._root, self._scratch.folder, limits=limits, keep_symlinks=symlinks == "keep"
        )
        self._placed: dict[CID, Written | None] = {}
        self._latest: tuple[CID, bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._placing.close()
        self._scratch.close()

    def take(self, cid: CID, block: bytes) -> None:
        """One block, its hash checked; one that came before is ignored.

        Raises InvalidContent, ContentTooLarge, and ContentError when it cannot be written.
        """
        if cid.version == 0:
            cid = cid.v1
        if cid in self._placed:
            return
        if cid != self._placing.expected:
            self._spool.put(cid, block)
        else:
            self._place(cid, block)
        self._settle()

    def _place(self, cid: CID, block: bytes) -> None:
        with writing(self._target):
            written = self._placing.place(block)
        if cid.codec == RAW:
            self._placed[cid] = written
        else:
            self._placed[cid] = None
            self._spool.put(cid, block)

    def _settle(self) -> None:
        """Go on with what is here, up to a block that is not."""
        while (cid := self._placing.expected) is not None:
            if cid in self._placed:
                self._placing.put_off()
            elif (block := self._spool.get(cid)) is not None:
                self._place(cid, block)
            else:
                return

    def finish(self, checkpoint: Callable[[], None] = lambda: None) -> Exported:
        """Write what is used again, and put everything in its place.

        `checkpoint` is called before each block and may raise to cancel. Raises as `export`, and
        InvalidContent when blocks are missing.
        """
        self._settle()
        if self._placing.expected is not None:
            raise InvalidContent(f"the node sent only a part of {self._root}")
        source: BlockSource = self
        stat = dag_stat(self._root, source, self._limits, missing_limit=1)
        self._placing.resume()
        while (cid := self._placing.expected) is not None:
            checkpoint()
            block = self.get(cid)
            if block is None:
                raise InvalidContent(f"block {cid} was changed by somebody after it had been written")
            with writing(self._target):
                self._placing.place(block)
        self._placing.close()
        self._scratch.install()
        return Exported(bytes=stat.bytes, entries=stat.entries, skipped=tuple(self._placing.skipped))

    # --- what came, as a block source

    def get(self, cid: CID) -> bytes | None:
        written = self._placed.get(cid)
        if written is None:
            return self._spool.get(cid)
        if self._latest is not None and self._latest[0] == cid:
            return self._latest[1]
        with writing(self._target):
            block = self._placing.read(written)
        if not cid.verify(block):
            return None
        self._latest = cid, block
        return block

    def sizes(self, cids: Sequence[CID]) -> dict[CID, int]:
        return {cid: written.size for cid in cids if (written := self._placed.get(cid)) is not None}

    def get_small(self, cids: Sequence[CID]) -> dict[CID, bytes]:
        return {}

    def size(self, cid: CID) -> int | None:
        written = self._placed.get(cid)
        return self._spool.size(cid) if written is None else written.size
