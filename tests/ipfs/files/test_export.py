from __future__ import annotations

import io
import tarfile

import pytest

from bacalhau_p2p.errors import ContentError, ContentNotFound
from bacalhau_p2p.ipfs.files.export import export
from bacalhau_p2p.ipfs.files.symlinks import stays_inside
from bacalhau_p2p.ipfs.files.tar import write_tar
from tests.support.blocks.dag_makers import blob, names, results_folder, tree


def test_a_folder_comes_back_as_it_was(blocks, tmp_path, out):
    folder = results_folder(tmp_path / "results")
    done = export(blocks.add(folder).cid, out / "copy", blocks)
    assert tree(out / "copy") == tree(folder)
    assert (done.bytes, done.entries, done.skipped) == (3_000_005, 6, ())
    assert names(out) == ["copy"]


def test_a_file_comes_back_as_it_was(blocks, tmp_path, out):
    file = tmp_path / "file"
    file.write_bytes(blob(1_000_001, 5))
    export(blocks.add(file).cid, out / "copy", blocks)
    assert (out / "copy").read_bytes() == file.read_bytes()
    assert names(out) == ["copy"]


@pytest.mark.parametrize("letter", ["a", "é", "日", "𝄞"])
def test_the_longest_name_there_is_may_be_that_of_the_target(blocks, out, letter):
    name = letter * (255 // len(letter.encode()))
    export(blocks.raw(b"data"), out / name, blocks)
    assert names(out) == [name]


def test_a_sharded_folder_comes_back_whole(blocks, tmp_path, out):
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(5000):
        (folder / f"file-{number:05d}.txt").write_text(str(number))
    done = export(blocks.add(folder).cid, out / "copy", blocks)
    assert (done.entries, done.bytes) == (5000, 18890)
    assert tree(out / "copy") == tree(folder)


def test_an_existing_target_is_refused_and_left_alone(blocks, out):
    cid = blocks.folder([(b"a", blocks.raw(b"new"))])
    (out / "copy").mkdir()
    with pytest.raises(ContentError, match="already exists"):
        export(cid, out / "copy", blocks)
    assert tree(out) == {"copy": None}


def test_a_target_that_is_a_symlink_is_not_written_through(blocks, out):
    (out / "elsewhere").mkdir()
    (out / "copy").symlink_to("elsewhere")
    cid = blocks.folder([(b"a", blocks.raw(b"new"))])
    with pytest.raises(ContentError, match="already exists"):
        export(cid, out / "copy", blocks)
    export(cid, out / "copy", blocks, existing="overwrite")
    assert tree(out) == {"copy": None, "copy/a": b"new", "elsewhere": None}


def test_overwrite_puts_the_content_in_the_place_of_the_old(blocks, out):
    (out / "copy").mkdir()
    (out / "copy" / "old").write_text("old")
    export(blocks.folder([(b"a", blocks.raw(b"new"))]), out / "copy", blocks, existing="overwrite")
    assert tree(out) == {"copy": None, "copy/a": b"new"}


def test_merge_adds_to_a_folder_and_replaces_files(blocks, out):
    (out / "copy" / "sub").mkdir(parents=True)
    (out / "copy" / "sub" / "old").write_text("old")
    (out / "copy" / "a").write_text("old")
    sub = blocks.folder([(b"b", blocks.raw(b"new b"))])
    cid = blocks.folder([(b"a", blocks.raw(b"new a")), (b"sub", sub)])
    export(cid, out / "copy", blocks, existing="merge")
    assert tree(out / "copy") == {"a": b"new a", "sub": None, "sub/b": b"new b", "sub/old": b"old"}


def test_merge_does_not_follow_a_symlink_in_the_target(blocks, out):
    (out / "elsewhere").mkdir()
    (out / "copy").mkdir()
    (out / "copy" / "sub").symlink_to(out / "elsewhere")
    cid = blocks.folder([(b"sub", blocks.folder([(b"b", blocks.raw(b"new"))]))])
    with pytest.raises(ContentError, match="cannot merge"):
        export(cid, out / "copy", blocks, existing="merge")
    assert tree(out / "elsewhere") == {}


def test_symlinks_are_left_out_and_reported(blocks, out):
    cid = blocks.folder([(b"a", blocks.raw(b"a")), (b"link", blocks.symlink(b"/etc/passwd"))])
    done = export(cid, out / "copy", blocks)
    assert (tree(out / "copy"), done.skipped) == ({"a": b"a"}, ("link",))


def test_kept_symlinks_cannot_lead_outside(blocks, out):
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


@pytest.mark.parametrize(
    ("target", "depth", "inside"),
    [
        ("a", 0, True),
        ("./a//b", 0, True),
        ("..", 0, False),
        ("..", 1, True),
        ("../../a", 1, False),
        ("a/../b", 3, False),
        ("/a", 3, False),
        ("..a/b..", 0, True),
    ],
)
def test_where_a_symlink_may_lead(target, depth, inside):
    assert stays_inside(target, depth) is inside


def test_content_that_is_only_a_symlink_writes_nothing(blocks, out):
    with pytest.raises(ContentError, match="symlink"):
        export(blocks.symlink(b"a"), out / "copy", blocks, symlinks="keep")
    assert names(out) == []


def test_an_incomplete_dag_writes_nothing(blocks, out):
    leaf = blocks.raw(b"leaf")
    cid = blocks.folder([(b"a", blocks.raw(b"a")), (b"b", leaf)])
    del blocks.blocks[leaf]
    with pytest.raises(ContentNotFound, match="incomplete"):
        export(cid, out / "copy", blocks)
    assert names(out) == []


def test_a_cancelled_export_leaves_nothing(blocks, out):
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


def test_a_target_without_a_parent_folder_is_a_one_line_error(blocks, out):
    with pytest.raises(ContentError, match=r"cannot write .*: No such file"):
        export(blocks.raw(b"a"), out / "no" / "copy", blocks)


def test_tar_extracts_to_the_same_folder(blocks, tmp_path, out):
    folder = results_folder(tmp_path / "results")
    long = "n" * 200
    (folder / long).write_text("long name")
    (folder / "link").symlink_to("stdout")
    (folder / "bad").symlink_to("/etc/passwd")
    cid = blocks.add(folder).cid
    stream = b"".join(write_tar(cid, blocks))
    assert stream == b"".join(write_tar(cid, blocks))
    with tarfile.open(fileobj=io.BytesIO(stream)) as archive:
        archive.extractall(out, filter="data")
    (folder / "bad").unlink()
    assert names(out) == [str(cid)]
    assert tree(out / str(cid)) == tree(folder)


def test_tar_of_an_incomplete_dag_fails_before_its_first_byte(blocks):
    leaf = blocks.raw(b"leaf")
    cid = blocks.folder([(b"a", leaf)])
    del blocks.blocks[leaf]
    with pytest.raises(ContentNotFound):
        next(write_tar(cid, blocks))
