"""A DAG as a TAR stream, for HTTP clients that know no IPFS (`?format=tar`)."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator

from bacalhau_p2p.errors import ContentNotFound, InvalidContent
from bacalhau_p2p.ipfs.files.export import stays_inside
from bacalhau_p2p.ipfs.format.block_source import BlockSource, missing_block
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.dag import Survey, survey
from bacalhau_p2p.ipfs.format.limits import DEFAULT_LIMITS, Limits
from bacalhau_p2p.ipfs.format.traversal import folder_entries
from bacalhau_p2p.ipfs.format.unixfs import File, Node, Symlink, decode


def write_tar(
    root: CID,
    source: BlockSource,
    *,
    name: str = "",
    limits: Limits = DEFAULT_LIMITS,
    sums: Survey | None = None,
) -> Iterator[bytes]:
    """The file or folder behind `root` as an uncompressed TAR, everything below one entry `name`
    (by default the CID, as IPFS gateways do), owner 0, time 0, so that equal content is an equal stream.

    Symlinks that could lead out of the folder are left out. The DAG is checked whole before the
    first byte; `sums` spares that walk: what `survey` gave for this root under these limits.
    Raises ContentNotFound when the DAG is not complete, InvalidContent, ContentTooLarge.
    """
    if not (sums or survey(root, source, limits, missing_limit=1)).complete:
        raise ContentNotFound(f"{root} is not complete in the store")
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
            below = self._load(part.cid)
            if not isinstance(below, File) or below.size != part.size:
                raise InvalidContent(f"block {part.cid} is not the part of a file that it was said to be")
            yield from self._content(below)

    def _load(self, cid: CID) -> Node:
        block = self._source.get(cid)
        if block is None:
            missing_block(cid)
        return decode(cid, block, self._limits)


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
