"""Writing a DAG block by block: `dag_writer`, and the `output_tree` below it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bacalhau_p2p.errors import ContentTooLarge, InvalidContent
from bacalhau_p2p.ipfs.files.dag_writer import CONTENT, DagWriter
from bacalhau_p2p.ipfs.files.output_tree import Extent, OutputTree
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.limits import DEFAULT_LIMITS, Limits
from bacalhau_p2p.ipfs.format.traversal import Walk
from tests.support.blocks.dag_makers import MemoryBlocks, expanding_folder, names, tree


@contextmanager
def writing(
    root: CID, out: Path, *, limits: Limits = DEFAULT_LIMITS, keep_symlinks: bool = False
) -> Iterator[DagWriter]:
    folder = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    writer = DagWriter(root, folder, limits=limits, keep_symlinks=keep_symlinks)
    try:
        yield writer
    finally:
        writer.close()
        os.close(folder)


def write_all(writer: DagWriter, blocks: MemoryBlocks) -> list[CID]:
    order = []
    while (cid := writer.expected) is not None:
        order.append(cid)
        writer.write(blocks.blocks[cid])
    return order


def open_files() -> int:
    return len(names(Path("/proc/self/fd")))


@pytest.fixture
def dag(blocks):
    leaves = [blocks.raw(b"%d" % number) for number in range(4)]
    inner = blocks.folder([(b"b", leaves[2]), (b"c", leaves[3])])
    return blocks.folder([(b"a", blocks.file([(leaves[0], 1), (leaves[1], 1)])), (b"inner", inner)])


def test_blocks_are_expected_in_the_order_of_a_walk(blocks, dag, out):
    with writing(dag, out) as writer:
        order = write_all(writer, blocks)
        assert (writer.bytes, writer.entries) == (4, 4)
    walk = Walk([dag])
    for cid in order:
        assert walk.expected == cid
        walk.take(blocks.blocks[cid])
    assert tree(out / CONTENT) == {"a": b"01", "inner": None, "inner/b": b"2", "inner/c": b"3"}


def test_a_file_or_folder_is_closed_with_its_last_block(blocks, dag, out):
    before = open_files() + 1  # the output folder
    with writing(dag, out) as writer:
        write_all(writer, blocks)
        assert open_files() == before


def test_deferred_blocks_are_written_after_all_others(blocks, out):
    leaf = blocks.raw(b"same")
    root = blocks.folder([(b"a", leaf), (b"b", leaf), (b"c", blocks.file([(leaf, 4), (leaf, 4)]))])
    with writing(root, out) as writer:
        writer.write(blocks.blocks[root])
        writer.write(b"same")
        writer.defer()
        writer.write(blocks.blocks[writer.expected])
        writer.defer()
        writer.defer()
        assert writer.expected is None
        assert tree(out / CONTENT) == {"a": b"same", "c": b""}
        writer.resume_deferred()
        assert write_all(writer, blocks) == [leaf] * 3
        assert writer.bytes == 16
    assert tree(out / CONTENT) == {"a": b"same", "b": b"same", "c": b"samesame"}


def test_the_content_of_a_written_block_is_read_back_from_its_file(blocks, out):
    leaves = [blocks.raw(b"first"), blocks.raw(b"second")]
    root = blocks.folder([(b"a", blocks.file([(leaves[0], 5), (leaves[1], 6)]))])
    with writing(root, out) as writer:
        extents = {}
        while (cid := writer.expected) is not None:
            extents[cid] = writer.write(blocks.blocks[cid])
        assert extents[root] is None
        extent = extents[leaves[1]]
        assert isinstance(extent, Extent)
        assert (extent.file.names(), extent.offset, extent.size) == ((CONTENT, "a"), 5, 6)
        assert [writer.read(extents[leaf]) for leaf in leaves] == [b"first", b"second"]


def test_an_empty_folder_is_created(blocks, out):
    with writing(blocks.folder([(b"empty", blocks.folder([]))]), out) as writer:
        write_all(writer, blocks)
    assert tree(out / CONTENT) == {"empty": None}


def test_symlinks_are_kept_or_reported(blocks, out):
    links = [(b"good", blocks.symlink(b"a")), (b"out", blocks.symlink(b"../a"))]
    root = blocks.folder([(b"a", blocks.raw(b"a")), *links])
    with writing(root, out, keep_symlinks=True) as writer:
        write_all(writer, blocks)
        assert writer.skipped == ["out"]
    assert tree(out / CONTENT) == {"a": b"a", "good": "a"}


def test_a_file_that_appears_meanwhile_is_not_overwritten(blocks, dag, out):
    with writing(dag, out) as writer:
        writer.write(blocks.blocks[dag])
        (out / CONTENT / "a").write_text("other")
        with pytest.raises(FileExistsError):
            write_all(writer, blocks)
    assert (out / CONTENT / "a").read_text() == "other"


def test_a_symlink_that_replaces_a_folder_is_not_followed(blocks, out, tmp_path):
    leaf = blocks.raw(b"same")
    root = blocks.folder([(b"a", blocks.folder([(b"x", leaf)])), (b"b", blocks.folder([(b"y", leaf)]))])
    (tmp_path / "elsewhere").mkdir()
    with writing(root, out) as writer:
        writer.write(blocks.blocks[root])
        writer.write(blocks.blocks[writer.expected])
        writer.write(b"same")
        writer.write(blocks.blocks[writer.expected])
        writer.defer()
        (out / CONTENT / "b").rmdir()
        (out / CONTENT / "b").symlink_to(tmp_path / "elsewhere")
        writer.resume_deferred()
        with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
            writer.write(b"same")
    assert names(tmp_path / "elsewhere") == []


def test_content_above_the_limits_is_refused(blocks, dag, out):
    (out / "many").mkdir()
    many = writing(dag, out / "many", limits=Limits(entries=3))
    with many as writer, pytest.raises(ContentTooLarge, match="more than 3 entries"):
        write_all(writer, blocks)
    (out / "deep").mkdir()
    deep = writing(dag, out / "deep", limits=Limits(folder_depth=1))
    with deep as writer, pytest.raises(InvalidContent, match="nested more than 1 levels deep"):
        write_all(writer, blocks)


def test_a_write_that_the_disk_takes_in_parts_is_whole(out, monkeypatch):
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: write(file, data[:3], offset))
    folder = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    output = OutputTree(folder)
    file = output.create_file(output.root, "file")
    assert output.write(file, b"0123456789", 2).size == 10
    output.close()
    os.close(folder)
    assert (out / "file").read_bytes() == b"\0\0" + b"0123456789"


def test_bytes_are_counted_before_they_are_written(out):
    root, blocks = expanding_folder(levels=1, width=10, leaf=1000, claim=10)
    with writing(root, out, limits=Limits(bytes=3500)) as writer:
        for _ in range(4):
            writer.write(blocks[writer.expected])
        with pytest.raises(ContentTooLarge):
            writer.write(blocks[writer.expected])
    assert sum(path.stat().st_size for path in (out / CONTENT).iterdir()) == 3000
