"""Writes a DAG to files on disk, in such a way that no DAG can write outside of its target."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bacalhau_p2p.ipfs.files.dag_writer import DagWriter
from bacalhau_p2p.ipfs.files.staging import Existing, StagingFolder, write_errors
from bacalhau_p2p.ipfs.format.block_source import BlockSource, require_block
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.dag_stat import DagStat, require_complete
from bacalhau_p2p.ipfs.format.limits import DEFAULT_LIMITS, Limits

__all__ = ["Existing", "Exported", "export"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written: bytes of files, number of entries, and the paths of symlinks that were left out."""

    bytes: int
    entries: int
    skipped: tuple[str, ...] = ()


def export(
    root: CID,
    target: Path,
    source: BlockSource,
    *,
    limits: Limits = DEFAULT_LIMITS,
    symlinks: Literal["skip", "keep"] = "skip",
    existing: Existing = "refuse",
    checkpoint: Callable[[], None] = lambda: None,
    stat: DagStat | None = None,
) -> Exported:
    """Write the file or folder `root` to `target`, whose parent folder must exist.

    Files get mode 0644 and folders 0755, less the umask. With `symlinks="keep"`, those that cannot lead out
    of the folder are written; all others are left out and reported. `checkpoint` is called before each block
    and may raise to cancel. `stat` is the complete `dag_stat` of this root, computed unless it is given.
    Content above the limits is refused before anything is written, and bytes are counted while they are.
    Raises ContentNotFound when a block is not in `source`, InvalidContent, ContentTooLarge, and
    ContentError when the target exists or cannot be written.
    """
    stat = require_complete(root, source, limits, stat)
    limits.check_bytes(stat.bytes, str(root))
    limits.check_entries(stat.entries)
    with StagingFolder(target, existing) as staging:
        writer = DagWriter(root, staging.folder, limits=limits, keep_symlinks=symlinks == "keep")
        with write_errors(target), closing(writer):
            while (cid := writer.expected) is not None:
                checkpoint()
                writer.write(require_block(cid, source))
        staging.install()
    return Exported(bytes=writer.bytes, entries=writer.entries, skipped=tuple(writer.skipped))
