"""A DAG as a TAR stream, for HTTP clients without IPFS (`?format=tar`)."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator

from bacalhau_p2p.ipfs.files.symlinks import stays_inside
from bacalhau_p2p.ipfs.format.block_source import BlockSource
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.dag_stat import DagStat, require_complete
from bacalhau_p2p.ipfs.format.limits import DEFAULT_LIMITS, Limits
from bacalhau_p2p.ipfs.format.traversal import folder_entries
from bacalhau_p2p.ipfs.format.unixfs import File, Node, Symlink, load_node, require_part


def write_tar(
    root: CID,
    source: BlockSource,
    *,
    name: str = "",
    limits: Limits = DEFAULT_LIMITS,
    stat: DagStat | None = None,
) -> Iterator[bytes]:
    """The file or folder `root` as an uncompressed TAR, everything below one entry `name`, by default the
    CID as on IPFS gateways. Owner and time are 0, so that equal content is an equal stream.

    Symlinks that could lead out of the folder are left out. The whole DAG is checked before the first byte,
    unless `stat` is its complete `dag_stat` under these limits.
    Raises ContentNotFound when the DAG is incomplete, InvalidContent, ContentTooLarge.
    """
    require_complete(root, source, limits, stat)
    yield from _Tar(source, limits).entry(root, name or str(root), 0)
    yield bytes(2 * tarfile.BLOCKSIZE)


class _Tar:
    def __init__(self, source: BlockSource, limits: Limits) -> None:
        self._source = source
        self._limits = limits

    def entry(self, cid: CID, name: str, depth: int) -> Iterator[bytes]:
        node = self._load(cid)
        info = tarfile.TarInfo(name)
        if isinstance(node, Symlink):
            if depth and stays_inside(node.target, depth - 1):
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, node.target, 0o777
                yield _header(info)
        elif isinstance(node, File):
            info.size = node.size
            yield _header(info)
            yield from self._content(node)
            yield bytes(-node.size % tarfile.BLOCKSIZE)
        else:
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            yield _header(info)
            for entry in folder_entries(cid, node, self._load):
                yield from self.entry(entry.cid, f"{name}/{entry.name}", depth + 1)

    def _content(self, node: File) -> Iterator[bytes]:
        yield node.data
        for part in node.parts:
            yield from self._content(require_part(part.cid, self._load(part.cid), part.size))

    def _load(self, cid: CID) -> Node:
        return load_node(cid, self._source, self._limits)


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
