"""Writes a DAG to files while its blocks arrive.

Blocks that arrive depth first are written to their files at once. A block that is used more than once
arrives once: its other uses are deferred until everything is there and was added up, so that what is
written before that is never more than what arrived, even if the DAG expands to much more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Self

from bacalhau_p2p.errors import InvalidContent
from bacalhau_p2p.ipfs.files.dag_writer import DagWriter
from bacalhau_p2p.ipfs.files.export import Exported
from bacalhau_p2p.ipfs.files.output_tree import Extent
from bacalhau_p2p.ipfs.files.spool import BlockSpool
from bacalhau_p2p.ipfs.files.staging import Existing, StagingFolder, write_errors
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.format.dag_stat import dag_stat
from bacalhau_p2p.ipfs.format.limits import DEFAULT_LIMITS, Limits


class Unpacker:
    """Writes the DAG below `root` to `target`. A context manager: on exit nothing is left but what
    `finish` has moved into place.

    Blocks may arrive in any order; those out of order are put aside in the spool.
    """

    def __init__(
        self,
        root: CID,
        target: Path,
        spool: BlockSpool,
        *,
        limits: Limits = DEFAULT_LIMITS,
        symlinks: Literal["skip", "keep"] = "skip",
        existing: Existing = "refuse",
    ) -> None:
        """`symlinks` and `existing` are as for `export`. `spool` may contain blocks; the caller closes it.
        Raises as `StagingFolder`."""
        self._root = root.v1
        self._target = target
        self._limits = limits
        self._spool = spool
        self._staging = StagingFolder(target, existing)
        self._writer = DagWriter(
            self._root, self._staging.folder, limits=limits, keep_symlinks=symlinks == "keep"
        )
        self._written: dict[CID, Extent | None] = {}
        """Where the content of each leaf is; None for nodes, which are in the spool."""
        self._latest: tuple[CID, bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._writer.close()
        self._staging.close()

    def add(self, cid: CID, block: bytes) -> None:
        """Take one block, whose hash is verified; a repeated one is ignored.

        Raises InvalidContent, ContentTooLarge, and ContentError when it cannot be written.
        """
        if cid.version == 0:
            cid = cid.v1
        if cid in self._written:
            return
        if cid != self._writer.expected:
            self._spool.put(cid, block)
        else:
            self._write(cid, block)
        self._write_available()

    def _write(self, cid: CID, block: bytes) -> None:
        with write_errors(self._target):
            extent = self._writer.write(block)
        if cid.codec == RAW:
            self._written[cid] = extent
        else:
            self._written[cid] = None
            self._spool.put(cid, block)

    def _write_available(self) -> None:
        """Go on until a block is expected that has not arrived."""
        while (cid := self._writer.expected) is not None:
            if cid in self._written:
                self._writer.defer()
            elif (block := self._spool.get(cid)) is not None:
                self._write(cid, block)
            else:
                return

    def finish(self, checkpoint: Callable[[], None] = lambda: None) -> Exported:
        """Write the deferred blocks, and move everything into place.

        `checkpoint` is called before each block and may raise to cancel. Raises as `export`, and
        InvalidContent when blocks are missing.
        """
        self._write_available()
        if self._writer.expected is not None:
            raise InvalidContent(f"incomplete response: the node sent only part of {self._root}")
        stat = dag_stat(self._root, self, self._limits, missing_limit=1)
        self._writer.resume_deferred()
        while (cid := self._writer.expected) is not None:
            checkpoint()
            block = self.get(cid)
            if block is None:
                raise InvalidContent(f"block {cid} was modified on disk after it was written")
            with write_errors(self._target):
                self._writer.write(block)
        self._writer.close()
        self._staging.install()
        return Exported(bytes=stat.bytes, entries=stat.entries, skipped=tuple(self._writer.skipped))

    # --- what arrived, as a block source

    def get(self, cid: CID) -> bytes | None:
        extent = self._written.get(cid)
        if extent is None:
            return self._spool.get(cid)
        if self._latest is not None and self._latest[0] == cid:
            return self._latest[1]
        with write_errors(self._target):
            block = self._writer.read(extent)
        if not cid.verify(block):
            return None
        self._latest = cid, block
        return block

    def size(self, cid: CID) -> int | None:
        extent = self._written.get(cid)
        return self._spool.size(cid) if extent is None else extent.size

    def sizes(self, cids: Sequence[CID]) -> dict[CID, int]:
        return {cid: extent.size for cid in cids if (extent := self._written.get(cid)) is not None}

    def get_small(self, cids: Sequence[CID]) -> dict[CID, bytes]:
        return {}
