from __future__ import annotations

import pytest

from bacalhau_p2p.errors import ContentError, ContentNotFound, ContentTooLarge
from bacalhau_p2p.ipfs.files.export import export
from bacalhau_p2p.ipfs.format.dag_stat import dag_stat
from bacalhau_p2p.ipfs.format.limits import Limits
from tests.support.blocks.dag_makers import MemoryBlocks, blob, expanding_folder, names, results_folder, tree


def test_an_exported_folder_is_equal_to_the_imported_one(blocks, tmp_path, out):
    folder = results_folder(tmp_path / "results")
    done = export(blocks.add(folder).cid, out / "copy", blocks)
    assert tree(out / "copy") == tree(folder)
    assert (done.bytes, done.entries, done.skipped) == (3_000_005, 6, ())
    assert names(out) == ["copy"]


def test_an_exported_file_is_equal_to_the_imported_one(blocks, tmp_path, out):
    file = tmp_path / "file"
    file.write_bytes(blob(1_000_001, 5))
    export(blocks.add(file).cid, out / "copy", blocks)
    assert (out / "copy").read_bytes() == file.read_bytes()
    assert names(out) == ["copy"]


def test_a_sharded_folder_is_exported_whole(blocks, tmp_path, out):
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(5000):
        (folder / f"file-{number:05d}.txt").write_text(str(number))
    done = export(blocks.add(folder).cid, out / "copy", blocks)
    assert (done.entries, done.bytes) == (5000, 18890)
    assert tree(out / "copy") == tree(folder)


def test_symlinks_are_left_out_and_reported(blocks, out):
    cid = blocks.folder([(b"a", blocks.raw(b"a")), (b"link", blocks.symlink(b"/etc/passwd"))])
    done = export(cid, out / "copy", blocks)
    assert (tree(out / "copy"), done.skipped) == ({"a": b"a"}, ("link",))


def test_symlinks_that_are_kept_cannot_lead_outside(blocks, out):
    sub = blocks.folder([(b"up", blocks.symlink(b"../a")), (b"out", blocks.symlink(b"../../a"))])
    cid = blocks.folder(
        [
            (b"a", blocks.raw(b"a")),
            (b"abs", blocks.symlink(b"/a")),
            (b"sub", sub),
            (b"via", blocks.symlink(b"sub/up/../..")),
        ]
    )
    done = export(cid, out / "copy", blocks, symlinks="keep")
    assert done.skipped == ("abs", "sub/out", "via")
    assert (out / "copy" / "sub" / "up").read_bytes() == b"a"


def test_nothing_is_written_when_the_content_is_only_a_symlink(blocks, out):
    with pytest.raises(ContentError, match="symlink"):
        export(blocks.symlink(b"a"), out / "copy", blocks, symlinks="keep")
    assert names(out) == []


def test_nothing_is_written_of_an_incomplete_dag(blocks, out):
    leaf = blocks.raw(b"leaf")
    cid = blocks.folder([(b"a", blocks.raw(b"a")), (b"b", leaf)])
    del blocks.blocks[leaf]
    with pytest.raises(ContentNotFound, match="incomplete"):
        export(cid, out / "copy", blocks)
    assert names(out) == []


def test_a_cancelled_export_leaves_nothing_behind(blocks, out):
    class Stop(BaseException):
        pass

    calls = iter(range(3))

    def checkpoint() -> None:
        if next(calls, None) is None:
            raise Stop

    cid = blocks.folder([(b"%d" % number, blocks.raw(b"x")) for number in range(9)])
    with pytest.raises(Stop):
        export(cid, out / "copy", blocks, checkpoint=checkpoint)
    assert names(out) == []


def test_content_above_the_limit_is_refused_before_anything_is_written(out):
    root, blocks = expanding_folder(levels=3, width=10, leaf=1000, claim=10)
    source = MemoryBlocks()
    source.blocks = blocks
    with pytest.raises(ContentTooLarge, match="has at least 1000000 bytes; the limit is 999999") as caught:
        export(root, out / "copy", source, limits=Limits(bytes=999_999), stat=dag_stat(root, source))
    assert caught.value.size == 1_000_000
    assert names(out) == []
    assert export(root, out / "copy", source, limits=Limits(bytes=1_000_000)).bytes == 1_000_000
