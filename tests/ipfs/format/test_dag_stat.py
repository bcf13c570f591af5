"""What DAGs add up to, read block by block and, where a `BulkBlockSource` allows it, many at once.

Covers also `block_source`.
"""

from __future__ import annotations

import pytest

from bacalhau_p2p.errors import ContentNotFound
from bacalhau_p2p.ipfs.format.block_source import require_block
from bacalhau_p2p.ipfs.format.dag_stat import DagStat, dag_stat, require_complete


def test_repeated_files_count_each_time_and_their_blocks_once(blocks):
    leaf = blocks.raw(b"12345")
    file = blocks.file([(leaf, 5)] * 3)
    folder = blocks.folder([(b"a", file), (b"b", leaf)])
    root = blocks.folder([(b"x", folder), (b"y", folder), (b"z", blocks.symlink(b"x"))])
    assert dag_stat(root, blocks) == DagStat(bytes=40, entries=7, blocks=5)


def test_the_root_is_no_entry(blocks):
    assert dag_stat(blocks.raw(b"123"), blocks) == DagStat(bytes=3, entries=0, blocks=1)
    assert dag_stat(blocks.folder([]), blocks) == DagStat(bytes=0, entries=0, blocks=1)


def test_missing_blocks_are_named_depth_first(blocks):
    leaves = [blocks.raw(b"%d" % number) for number in range(4)]
    inner = blocks.folder([(b"a", leaves[0]), (b"b", leaves[1])])
    root = blocks.folder([(b"i", inner), (b"j", leaves[2]), (b"k", leaves[3])])
    for cid in (leaves[1], leaves[2]):
        del blocks.blocks[cid]
    stat = dag_stat(root, blocks)
    assert (stat.missing, stat.complete) == ((leaves[1], leaves[2]), False)
    assert dag_stat(root, blocks, missing_limit=1).missing == (leaves[1],)
    del blocks.blocks[inner]
    assert dag_stat(root, blocks).missing == (inner, leaves[2])


def test_a_missing_part_of_a_file_counts_as_declared(blocks):
    leaf = blocks.raw(b"12345")
    root = blocks.file([(leaf, 5), (blocks.raw(b"67"), 2)])
    del blocks.blocks[leaf]
    assert dag_stat(root, blocks) == DagStat(bytes=7, entries=0, blocks=2, missing=(leaf,))


def test_parts_of_files_are_not_read(blocks):
    root = blocks.file([(blocks.raw(b"%02d" % number), 2) for number in range(100)])
    dag_stat(root, blocks)
    assert blocks.reads == 1


def test_an_incomplete_dag_is_an_error_where_a_complete_one_is_required(blocks):
    leaf = blocks.raw(b"leaf")
    root = blocks.folder([(b"a", leaf)])
    assert require_complete(root, blocks) == dag_stat(root, blocks)
    del blocks.blocks[leaf]
    with pytest.raises(ContentNotFound, match=f"{root} is incomplete in the store"):
        require_complete(root, blocks)
    with pytest.raises(ContentNotFound):
        require_complete(root, blocks, stat=dag_stat(root, blocks))
    with pytest.raises(ContentNotFound, match=f"block {leaf} is not in the store"):
        require_block(leaf, blocks)
