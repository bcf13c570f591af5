"""Folders, and blocks made by hand, also such as no honest builder makes; a store of them in memory."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

from bacalhau_p2p.ipfs.files.importer import Added, build
from bacalhau_p2p.ipfs.format.cid import CID, DAG_PB, RAW
from bacalhau_p2p.ipfs.format.dag_pb import (
    PBLink,
    encode_block,
    encode_directory,
    encode_file,
    encode_symlink,
)
from bacalhau_p2p.ipfs.format.subtree import Blocks, Subtree


class MemoryBlocks:
    """A block source over a dict; `reads` counts how many blocks were read."""

    def __init__(self) -> None:
        self.blocks: dict[CID, bytes] = {}
        self.reads = 0

    def put(self, cid: CID, block: bytes) -> None:
        self.blocks[cid.v1] = block

    def get(self, cid: CID) -> bytes | None:
        self.reads += 1
        return self.blocks.get(cid.v1)

    def size(self, cid: CID) -> int | None:
        block = self.blocks.get(cid.v1)
        return None if block is None else len(block)

    # --- makers: each stores its block and returns its CID

    def raw(self, data: bytes) -> CID:
        return self._add(RAW, data)

    def node(self, block: bytes) -> CID:
        return self._add(DAG_PB, block)

    def folder(self, entries: Iterable[tuple[bytes, CID]]) -> CID:
        links = [PBLink(cid, name, 0) for name, cid in entries]
        return self.node(encode_block(links, encode_directory()))

    def file(self, parts: Iterable[tuple[CID, int]], filesize: int | None = None) -> CID:
        parts = list(parts)
        links = [PBLink(cid, b"", size) for cid, size in parts]
        total = sum(size for _, size in parts) if filesize is None else filesize
        return self.node(encode_block(links, encode_file(total, [size for _, size in parts])))

    def symlink(self, target: bytes) -> CID:
        return self.node(encode_block((), encode_symlink(target)))

    def add(self, path: Path, **options: object) -> Added:
        return build(path, self.put, **options)  # type: ignore[arg-type]

    def _add(self, codec: int, block: bytes) -> CID:
        cid = CID.of(codec, block)
        self.blocks[cid] = block
        return cid


def expanding_folder(levels: int, width: int, leaf: int, claim: int) -> tuple[CID, dict[CID, bytes]]:
    """A folder of `width ** levels` files that are all one block of `leaf` bytes; each of its links claims
    `claim` bytes. Returns its root and its few blocks."""
    data = bytes(leaf)
    root = CID.of(RAW, data)
    blocks = {root: data}
    for _ in range(levels):
        links = [PBLink(root, f"{number:04d}".encode(), claim) for number in range(width)]
        block = encode_block(links, encode_directory())
        root = CID.of(DAG_PB, block)
        blocks[root] = block
    return root, blocks


def blob(size: int, seed: int) -> bytes:
    """The same random bytes for the same seed, drawn in pieces of 1 MiB."""
    generator = random.Random(seed)
    return b"".join(generator.randbytes(min(1 << 20, size - start)) for start in range(0, size, 1 << 20))


def results_folder(path: Path) -> Path:
    """A results folder as an executor leaves it."""
    (path / "outputs" / "emptydir").mkdir(parents=True)
    (path / "stdout").write_bytes(b"out\n")
    (path / "stderr").write_bytes(b"")
    (path / "exitCode").write_bytes(b"0")
    (path / "outputs" / "data.bin").write_bytes(blob(3_000_000, 9))
    return path


def tree(path: Path) -> dict[str, bytes | str | None]:
    """Everything below `path`: the content of files, None for folders, the target of symlinks."""
    found: dict[str, bytes | str | None] = {}
    for entry in sorted(path.rglob("*")):
        name = str(entry.relative_to(path))
        if entry.is_symlink():
            found[name] = str(entry.readlink())
        else:
            found[name] = entry.read_bytes() if entry.is_file() else None
    return found


def fill(folder: Path, entries: int, size: int = 0) -> Path:
    """A folder with so many files of `size` zero bytes."""
    folder.mkdir(exist_ok=True)
    for number in range(entries):
        (folder / str(number)).write_bytes(bytes(size))
    return folder


def names(folder: Path) -> list[str]:
    """The names directly in a folder, sorted."""
    return sorted(entry.name for entry in folder.iterdir())


def file_of(leaves: int, size: int) -> tuple[MemoryBlocks, CID, list[CID]]:
    """A file of so many leaves of this size: its blocks, its root and its leaves."""
    blocks = MemoryBlocks()
    parts = [blocks.raw(blob(size, seed)) for seed in range(leaves)]
    return blocks, blocks.file([(part, size) for part in parts]), parts


def built(blocks: Blocks) -> tuple[dict[CID, bytes], Subtree]:
    """The blocks that a builder yields, in their order, and the root that it returns."""
    found: dict[CID, bytes] = {}
    try:
        while True:
            cid, block = next(blocks)
            found[cid] = block
    except StopIteration as end:
        root: Subtree = end.value
        return found, root
