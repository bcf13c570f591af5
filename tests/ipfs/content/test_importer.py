from __future__ import annotations

import pytest
import trio

from bacalhau_p2p.errors import ContentTooLarge, InvalidContent
from bacalhau_p2p.ipfs.files.importer import cid_of
from bacalhau_p2p.ipfs.files.pack import Packed
from bacalhau_p2p.ipfs.format.car import CarReader, header, section
from bacalhau_p2p.ipfs.format.cid import CID, DAG_PB, RAW
from bacalhau_p2p.ipfs.format.dag_pb import PBLink, encode_block, encode_directory
from bacalhau_p2p.ipfs.format.limits import Limits
from bacalhau_p2p.ipfs.store.block_store import BlockStore, Pin
from tests.support.blocks.contents import alone, packed_under_its_root, pieces
from tests.support.blocks.dag_makers import MemoryBlocks, blob, results_folder


async def test_added_content_is_stored_and_pinned(content, store, tmp_path):
    folder = results_folder(tmp_path / "results")
    (folder / ".hidden").write_text("also a result")
    added = await content.add(folder, pin_owner="job-1")
    assert added.cid == cid_of(folder, hidden=True)
    assert await content.has(added.cid)
    assert await content.size(added.cid) == added.size == 3_000_018
    assert store.pins() == [Pin(added.cid, "job-1", None)]


async def test_hidden_files_can_be_left_out_as_kubo_does(content, tmp_path):
    folder = results_folder(tmp_path / "results")
    (folder / ".hidden").write_text("")
    assert (await content.add(folder, pin_owner="user", hidden=False)).cid == cid_of(folder)


async def test_a_cancelled_add_pins_nothing(content, store, tmp_path):
    (tmp_path / "file").write_bytes(blob(5_000_000, 1))
    with trio.CancelScope() as scope:
        scope.cancel()
        await content.add(tmp_path / "file", pin_owner="user")
    assert scope.cancelled_caught
    assert store.pins() == []


# --- CARs


async def test_a_car_of_one_node_is_imported_by_another(content, tmp_path):
    added = await content.add(results_folder(tmp_path / "results"), pin_owner="job-1")
    car = b"".join([chunk async for chunk in content.reader.car(added.cid)])
    with BlockStore(tmp_path / "other") as other:
        receiver = alone(other)
        assert await receiver.import_car(pieces(car), pin_owner="user") == added.cid
        assert await receiver.has(added.cid)
        assert [pin.owner for pin in other.pins(added.cid)] == ["user"]


async def test_a_car_with_leaves_first_is_imported(content, tmp_path):
    folder = results_folder(tmp_path / "results")
    root = await content.import_car(pieces(packed_under_its_root(folder), 999), pin_owner="user")
    assert root == cid_of(folder)


async def test_a_car_with_its_root_last_is_imported_on_request(content, store, tmp_path):
    folder = results_folder(tmp_path / "results")
    packed = Packed(folder)
    car = b"".join(packed)
    with pytest.raises(InvalidContent, match="has 0 roots"):
        await content.import_car(pieces(car, 999), pin_owner="user")
    with pytest.raises(InvalidContent, match="has 0 roots"):
        await content.import_car(pieces(header([])), pin_owner="user", root_is_last=True)
    with pytest.raises(InvalidContent, match="is missing in the CAR stream"):
        await content.import_car(pieces(with_dangling_root(car)), pin_owner="user", root_is_last=True)
    assert store.pins() == []
    assert await content.import_car(pieces(car, 999), pin_owner="user", root_is_last=True) == packed.root
    assert packed.root == cid_of(folder)


def with_dangling_root(car: bytes) -> bytes:
    """The sections of a CAR, and behind them a root that links to a block which exists nowhere."""
    root = encode_block([PBLink(CID.of(RAW, b"nowhere"), b"a", 9)], encode_directory())
    sections = [*CarReader().feed(car)[1:], (CID.of(DAG_PB, root), root)]
    return header([]) + b"".join(section(cid, block) for cid, block in sections)


def car_of(*roots: CID, blocks: MemoryBlocks) -> bytes:
    return header(roots) + b"".join(section(cid, block) for cid, block in blocks.blocks.items())


async def test_only_one_complete_dag_is_imported(content, store):
    blocks = MemoryBlocks()
    leaf = blocks.raw(b"leaf")
    root = blocks.folder([(b"a", leaf), (b"b", blocks.raw(b"other"))])
    incomplete = MemoryBlocks()
    missing = CID.of(RAW, b"missing")
    dangling = incomplete.folder([(b"a", missing)])
    for car, message in (
        (car_of(root, leaf, blocks=blocks), "has 2 roots"),
        (car_of(blocks=blocks), "has 0 roots"),
        (car_of(root, blocks=blocks)[:-1], "truncated"),
        (b"", "truncated"),
        (header([CID.of(0x71, b"")]), "codec 0x71"),
        (car_of(dangling, blocks=incomplete), f"block {missing} is missing in the CAR stream"),
    ):
        with pytest.raises(InvalidContent, match=message):
            await content.import_car(pieces(car), pin_owner="user")
    assert store.pins() == []


async def test_an_upload_above_the_limit_is_stopped(tmp_path):
    with BlockStore(tmp_path / "small", limits=Limits(bytes=1000, entries=1)) as small:

        async def endless():
            while True:
                yield bytes(1 << 18)

        with pytest.raises(ContentTooLarge):
            await alone(small).import_car(endless(), pin_owner="user")
