from __future__ import annotations

import io
import tarfile

import pytest

from bacalhau_p2p.errors import ContentNotFound
from bacalhau_p2p.ipfs.files.tar import write_tar
from tests.support.blocks.dag_makers import names, results_folder, tree


def test_a_tar_extracts_to_the_imported_folder(blocks, tmp_path, out):
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


def test_a_tar_of_an_incomplete_dag_fails_before_its_first_byte(blocks):
    leaf = blocks.raw(b"leaf")
    cid = blocks.folder([(b"a", leaf)])
    del blocks.blocks[leaf]
    with pytest.raises(ContentNotFound):
        next(write_tar(cid, blocks))


def test_a_tar_of_a_file_has_one_entry(blocks, tmp_path):
    (tmp_path / "file").write_bytes(bytes(1_000_000))
    stream = b"".join(write_tar(blocks.add(tmp_path / "file").cid, blocks, name="data.bin"))
    with tarfile.open(fileobj=io.BytesIO(stream)) as archive:
        (entry,) = archive.getmembers()
        assert (entry.name, entry.size, entry.mtime, entry.uid) == ("data.bin", 1_000_000, 0, 0)
