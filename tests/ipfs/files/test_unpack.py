"""Content that is written to files while its blocks arrive."""

from __future__ import annotations

import random
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest

from bacalhau_p2p.client.download import Download
from bacalhau_p2p.errors import ContentError, ContentNotFound, InvalidContent
from bacalhau_p2p.ipfs.files.export import Exported
from bacalhau_p2p.ipfs.files.spool import BlockSpool
from bacalhau_p2p.ipfs.files.unpack import Unpacker
from bacalhau_p2p.ipfs.format.car import header, section, write_car
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.profiles import Profile
from bacalhau_p2p.ipfs.format.unixfs import Shard, decode
from tests.support.blocks.dag_makers import MemoryBlocks, blob, names, results_folder, tree


def depth_first(root: CID, blocks: MemoryBlocks) -> list[tuple[CID, bytes]]:
    """In the order of a CAR, each block once."""
    pieces = list(write_car([root], blocks))[1:]
    return [
        (CID.read(head, len(head) - 36)[0], block)
        for head, block in zip(pieces[::2], pieces[1::2], strict=True)
    ]


def add(blocks: MemoryBlocks, folder: Path) -> CID:
    """A folder whose larger sub-folders are sharded."""
    return blocks.add(folder, profile=Profile(shard_above=4000)).cid


def unpack(root: CID, stream: Iterable[tuple[CID, bytes]], target: Path, **options) -> Exported:
    with closing(BlockSpool()) as spool, Unpacker(root, target, spool, **options) as unpacker:
        for cid, block in stream:
            unpacker.add(cid, block)
        return unpacker.finish()


def folder_with_repeated_content(path: Path) -> Path:
    """The same bytes as files, as parts of files and as whole folders, in many places."""
    half, zeros = blob(1 << 18, 1), bytes(1 << 18)
    for name in ("a", "b/inner", "c"):
        results_folder(path / name)
    (path / "zeros").write_bytes(zeros * 9 + b"end")
    (path / "all-zeros").write_bytes(zeros * 40 + half)
    (path / "woven").write_bytes((half + zeros) * 3)
    (path / "one-block").write_bytes(half)
    (path / "once-more").write_bytes(half)
    (path / "empty").mkdir()
    (path / "a" / "link").symlink_to("stdout")
    for folder in ("many", "most"):  # two sharded folders that share most of their shards
        (path / folder).mkdir()
        for number in range(300):
            (path / folder / f"{number}").write_text(str(number % 50))
    (path / "most" / "another").write_text("more")
    return path


@pytest.mark.parametrize("symlinks", ["keep", "skip"])
def test_a_repeated_block_is_written_to_each_of_its_places(blocks, tmp_path, out, symlinks):
    folder = folder_with_repeated_content(tmp_path / "results")
    root = add(blocks, folder)
    done = unpack(root, depth_first(root, blocks), out / "copy", symlinks=symlinks)
    expected = tree(folder)
    if symlinks == "skip":
        del expected["a/link"]
    assert tree(out / "copy") == expected
    assert names(out) == ["copy"]
    assert done.skipped == (() if symlinks == "keep" else ("a/link",))
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert done.bytes == sum(path.stat().st_size for path in files)
    assert done.entries == len(list(folder.rglob("*")))


def test_blocks_may_arrive_in_any_order_and_more_than_once(blocks, tmp_path, out):
    folder = folder_with_repeated_content(tmp_path / "results")
    root = add(blocks, folder)
    stream = list(blocks.blocks.items()) + list(blocks.blocks.items())[:20]
    random.Random(1).shuffle(stream)
    unpack(root, stream, out / "copy", symlinks="keep")
    assert tree(out / "copy") == tree(folder)


def test_a_file_is_written_while_its_blocks_arrive(blocks, tmp_path, out):
    (tmp_path / "file").write_bytes(content := blob(3_000_000, 9))
    root = blocks.add(tmp_path / "file").cid
    stream = depth_first(root, blocks)
    with closing(BlockSpool()) as spool, Unpacker(root, out / "copy", spool) as unpacker:
        for cid, block in stream[:6]:
            unpacker.add(cid, block)
        (staging,) = out.iterdir()
        assert (staging / "content").read_bytes() == content[: 5 << 18]
        for cid, block in stream[6:]:
            unpacker.add(cid, block)
        unpacker.finish()
    assert (out / "copy").read_bytes() == content


def test_an_incomplete_dag_leaves_nothing_behind(blocks, tmp_path, out):
    root = blocks.add(results_folder(tmp_path / "results")).cid
    stream = depth_first(root, blocks)
    for missing in range(len(stream)):
        with pytest.raises(InvalidContent, match=f"the node sent only part of {root}"):
            unpack(root, stream[:missing] + stream[missing + 1 :], out / "copy")
        assert names(out) == []


def test_an_existing_target_is_refused_before_any_block_arrives(blocks, out):
    (out / "copy").mkdir()
    with closing(BlockSpool()) as spool, pytest.raises(ContentError, match="already exists"):
        Unpacker(blocks.raw(b"x"), out / "copy", spool)
    assert tree(out) == {"copy": None}


def test_a_target_that_appears_meanwhile_is_unchanged(blocks, out):
    root = blocks.folder([(b"a", blocks.raw(b"new"))])
    with closing(BlockSpool()) as spool, Unpacker(root, out / "copy", spool) as unpacker:
        for cid, block in depth_first(root, blocks):
            unpacker.add(cid, block)
        (out / "copy").mkdir()
        (out / "copy" / "a").write_text("old")
        with pytest.raises(ContentError, match=r"cannot write|already exists"):
            unpacker.finish()
    assert tree(out) == {"copy": None, "copy/a": b"old"}
    assert names(out) == ["copy"]


def test_a_file_that_was_modified_meanwhile_is_not_used_again(blocks, out):
    leaf = blocks.raw(b"same")
    root = blocks.folder([(b"a", leaf), (b"b", leaf)])
    with closing(BlockSpool()) as spool, Unpacker(root, out / "copy", spool) as unpacker:
        for cid, block in depth_first(root, blocks):
            unpacker.add(cid, block)
        (staging,) = out.iterdir()
        (staging / "content" / "a").write_bytes(b"else")
        with pytest.raises(InvalidContent, match=f"block {leaf} was modified"):
            unpacker.finish()
    assert names(out) == []


def test_a_cancelled_finish_leaves_nothing_behind(blocks, out):
    leaf = blocks.raw(b"same")
    root = blocks.folder([(b"%d" % number, leaf) for number in range(9)])
    calls = 0

    def checkpoint() -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt

    with closing(BlockSpool()) as spool, Unpacker(root, out / "copy", spool) as unpacker:
        for cid, block in depth_first(root, blocks):
            unpacker.add(cid, block)
        with pytest.raises(KeyboardInterrupt):
            unpacker.finish(checkpoint)
    assert names(out) == []


def test_no_file_descriptor_is_left_open(blocks, tmp_path, out):
    root = add(blocks, folder_with_repeated_content(tmp_path / "results"))
    assert sum(isinstance(decode(cid, block), Shard) for cid, block in blocks.blocks.items()) > 50  # shards
    stream = depth_first(root, blocks)
    before = len(names(Path("/proc/self/fd")))
    unpack(root, stream, out / "copy")
    for cut in (3, len(stream) // 2, len(stream) - 1):
        with pytest.raises(InvalidContent):
            unpack(root, stream[:cut], out / "other")
    assert len(names(Path("/proc/self/fd"))) == before


# --- a download ----------------------------------------------------------------------------------


def car_of(root: CID, blocks: MemoryBlocks, ancestors: tuple[CID, ...] = ()) -> bytes:
    above = b"".join(section(cid, blocks.blocks[cid]) for cid in ancestors)
    return header([root]) + above + b"".join(list(write_car([root], blocks))[1:])


@pytest.mark.parametrize("step", [1_000, 100_000, 10_000_000])
def test_the_content_at_a_path_is_written_while_it_arrives(blocks, tmp_path, out, step):
    folder = folder_with_repeated_content(tmp_path / "results")
    root = add(blocks, folder)
    inner = add(blocks, folder / "b")
    stream = car_of(inner, blocks, (root,))
    with Download(root, out / "copy", path=("b",)) as download:
        for start in range(0, len(stream), step):
            download.feed(stream[start : start + step])
        download.finish()
    assert tree(out / "copy") == tree(folder / "b")
    assert names(out) == ["copy"]


def test_a_path_that_does_not_exist_is_an_error(blocks, tmp_path, out):
    root = blocks.add(results_folder(tmp_path / "results")).cid
    with (
        Download(root, out / "copy", path=("outputs", "absent")) as download,
        pytest.raises(ContentNotFound, match="path 'outputs/absent' not found in"),
    ):
        download.feed(car_of(root, blocks))
    assert names(out) == []


def test_a_path_without_the_blocks_that_prove_it_is_refused(blocks, tmp_path, out):
    folder = results_folder(tmp_path / "results")
    root, inner = add(blocks, folder), blocks.add(folder / "outputs").cid
    with Download(root, out / "copy", path=("outputs",)) as download:
        download.feed(car_of(inner, blocks))
        with pytest.raises(InvalidContent, match=f"only part of {root}"):
            download.finish()
    assert names(out) == []
