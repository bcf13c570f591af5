from __future__ import annotations

import pytest

from bacalhau_p2p.errors import ContentNotFound, InvalidCID, InvalidContent
from bacalhau_p2p.ipfs.files.reader import entity_blocks, read_file, resolve, split_path
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.format.profiles import Profile
from bacalhau_p2p.ipfs.format.unixfs import File, Shard, load_node
from tests.support.blocks.dag_makers import blob

SMALL = Profile(chunk=100, links=3, shard_above=1000)


@pytest.mark.parametrize("text", ["{cid}/a/b", "ipfs://{cid}/a/b", "/ipfs/{cid}/a/b", "{cid}//a/b/"])
def test_a_path_is_split_into_its_cid_and_names(text):
    cid = CID.of(RAW, b"")
    assert split_path(text.format(cid=cid)) == (cid, ("a", "b"))


@pytest.mark.parametrize("path", ["nonsense", "{cid}/..", "{cid}/./a", "{cid}/a\0b"])
def test_an_invalid_path_is_refused(path):
    with pytest.raises(InvalidCID):
        split_path(path.format(cid=CID.of(RAW, b"")))


def test_a_path_is_resolved_with_the_blocks_that_lead_there(blocks):
    leaf = blocks.raw(b"leaf")
    inner = blocks.folder([(b"b", leaf)])
    root = blocks.folder([(b"a", inner)])
    resolved = resolve(root, ("a", "b"), blocks)
    assert (resolved.cid, resolved.ancestors) == (leaf, (root, inner))
    assert resolved.node == File(4, b"leaf")
    assert resolve(root, (), blocks).ancestors == ()


def test_a_path_through_a_sharded_folder_reads_only_its_shards(blocks, tmp_path):
    for number in range(2000):
        (tmp_path / f"file {number}").write_text(str(number))
    root = blocks.add(tmp_path, profile=SMALL).cid
    blocks.reads = 0
    resolved = resolve(root, ("file 1234",), blocks)
    assert resolved.node == File(4, b"1234")
    assert blocks.reads == len(resolved.ancestors) + 1 <= 4
    assert all(isinstance(load_node(cid, blocks), Shard) for cid in resolved.ancestors)
    for absent in ("file 2000", "file", "x"):
        with pytest.raises(ContentNotFound, match=f"path '{absent}' not found in {root}"):
            resolve(root, (absent,), blocks)


def test_a_path_that_does_not_exist_is_not_found(blocks):
    root = blocks.folder([(b"a", blocks.raw(b"leaf")), (b"link", blocks.symlink(b"a"))])
    for names in (("b",), ("a", "inside"), ("link", "inside")):
        with pytest.raises(ContentNotFound, match=f"path '{'/'.join(names)}' not found in {root}"):
            resolve(root, names, blocks)


@pytest.mark.parametrize(
    ("start", "end"), [(0, None), (0, 10), (99, 101), (450, 1000), (949, None), (950, None), (300, 300)]
)
def test_a_range_of_a_file_is_read_without_the_other_leaves(blocks, tmp_path, start, end):
    (tmp_path / "file").write_bytes(content := blob(950, 1))
    file = blocks.add(tmp_path / "file", profile=SMALL).cid
    leaves = {cid for cid in blocks.blocks if cid.codec == RAW}
    read = []
    get = blocks.get
    blocks.get = lambda cid: read.append(cid) or get(cid)
    assert b"".join(read_file(file, blocks, start, end)) == content[start:end]
    wanted = -(-min(end or 950, 950) // 100) - start // 100 if start < min(end or 950, 950) else 0
    assert len(leaves.intersection(read)) == wanted


def test_only_files_can_be_read(blocks):
    folder = blocks.folder([])
    with pytest.raises(InvalidContent, match=f"{folder} is not a file"):
        read_file(folder, blocks)


def test_a_missing_leaf_is_not_found(blocks):
    leaf = blocks.raw(b"12345")
    file = blocks.file([(leaf, 5)])
    del blocks.blocks[leaf]
    with pytest.raises(ContentNotFound, match=f"block {leaf} is not in the store"):
        list(read_file(file, blocks))


def test_a_part_of_another_size_than_declared_is_refused(blocks):
    file = blocks.file([(blocks.raw(b"123"), 5)])
    with pytest.raises(InvalidContent, match="has 3 bytes; its parent declares 5"):
        list(read_file(file, blocks))


def test_the_entity_of_a_file_is_all_of_its_blocks(blocks, tmp_path):
    (tmp_path / "file").write_bytes(blob(950, 1))
    file = blocks.add(tmp_path / "file", profile=SMALL).cid
    found = list(entity_blocks(file, blocks))
    assert found[0] == file
    assert sorted(found) == sorted(blocks.blocks)


def test_the_entity_of_a_folder_leaves_out_its_entries(blocks, tmp_path):
    plain = blocks.folder([(b"a", blocks.raw(b"leaf"))])
    assert list(entity_blocks(plain, blocks)) == [plain]
    for number in range(600):
        (tmp_path / f"file {number}").write_text(str(number))
    sharded = blocks.add(tmp_path, profile=SMALL).cid
    shards = list(entity_blocks(sharded, blocks))
    assert len(shards) > 1
    assert all(isinstance(load_node(cid, blocks), Shard) for cid in shards)
