from __future__ import annotations

import io
import tarfile

import pytest

from bacalhau_p2p.errors import ContentNotFound
from bacalhau_p2p.ipfs.content.reader import STREAM_CHUNK
from bacalhau_p2p.ipfs.format.car import CarReader
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from tests.support.blocks.contents import packed_under_its_root, pieces
from tests.support.blocks.dag_makers import blob, results_folder, tree
from tests.support.blocks.stored_blocks import lose_large_block

NOWHERE = CID.of(RAW, b"nowhere")


async def collect(chunks) -> list[bytes]:
    return [chunk async for chunk in chunks]


async def test_streams_come_in_large_chunks(content, tmp_path):
    added = await content.add(results_folder(tmp_path / "results"), pin_owner="job-1")
    chunks = await collect(content.reader.car(added.cid))
    assert len(chunks) > 2
    assert all(len(chunk) >= STREAM_CHUNK for chunk in chunks[:-1])


async def test_a_folder_is_read_as_a_tar(content, tmp_path):
    folder = results_folder(tmp_path / "results")
    added = await content.add(folder, pin_owner="job-1")
    stream = b"".join(await collect(content.reader.tar(added.cid, name="job")))
    with tarfile.open(fileobj=io.BytesIO(stream)) as archive:
        archive.extractall(tmp_path / "out", filter="data")
    assert tree(tmp_path / "out" / "job") == tree(folder)


async def test_blocks_entries_and_parts_of_files_are_read(content, tmp_path):
    added = await content.add(results_folder(tmp_path / "results"), pin_owner="job-1")
    assert await content.reader.block(added.entries["stdout"]) == b"out\n"
    outputs = await content.reader.resolve(added.cid, ("outputs",))
    assert await content.reader.entries(outputs) == ["data.bin", "emptydir"]
    data = await content.reader.resolve(added.cid, ("outputs", "data.bin"))
    assert await content.reader.entries(data) == []
    part = b"".join(await collect(content.reader.file(data.cid, 999_990, 2_000_010)))
    assert part == blob(3_000_000, 9)[999_990:2_000_010]


@pytest.mark.parametrize(("scope", "below"), [("all", 13), ("entity", 13), ("block", 1)])
async def test_a_car_of_a_file_has_the_blocks_that_lead_there_and_those_in_scope(
    content, tmp_path, scope, below
):
    added = await content.add(results_folder(tmp_path / "results"), pin_owner="job-1")
    data = await content.reader.resolve(added.cid, ("outputs", "data.bin"))
    reader = CarReader()
    blocks = reader.feed(b"".join(await collect(content.reader.car_at(data, scope))))
    reader.finish()
    assert reader.roots == (data.cid,)
    assert [cid for cid, _ in blocks[:3]] == [added.cid, added.entries["outputs"], data.cid]
    assert len(blocks) == 2 + below


async def test_missing_content_is_not_found_before_the_first_byte(content):
    with pytest.raises(ContentNotFound):
        await content.reader.block(NOWHERE)
    for stream in (content.reader.car, content.reader.tar, content.reader.file):
        with pytest.raises(ContentNotFound):
            await anext(stream(NOWHERE))


async def test_a_block_that_was_lost_on_disk_is_noticed_when_it_is_read(content, tmp_path):
    added = await content.add(results_folder(tmp_path / "results"), pin_owner="job-1")
    assert await content.has(added.cid)
    leaf = (await content.reader.resolve(added.cid, ("outputs", "data.bin"))).node.parts[0].cid
    for use in (
        lambda: content.export(added.cid, tmp_path / "copy"),
        lambda: collect(content.reader.car(added.cid)),
    ):
        assert await content.import_car(pieces(packed_under_its_root(tmp_path / "results")), pin_owner="user")
        assert await content.has(added.cid)
        lose_large_block(tmp_path / "store", leaf)
        with pytest.raises(ContentNotFound, match=f"{leaf}"):
            await use()
        assert not await content.has(added.cid)
