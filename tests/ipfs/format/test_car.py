from __future__ import annotations

import pytest

from bacalhau_p2p.errors import ContentNotFound, InvalidContent
from bacalhau_p2p.ipfs.format.car import CarReader, batches, error_section, header, section, write_car
from bacalhau_p2p.ipfs.format.cid import CID, DAG_PB, RAW
from tests.support.blocks.dag_makers import MemoryBlocks, blob, results_folder


@pytest.fixture
def stored(tmp_path):
    blocks = MemoryBlocks()
    added = blocks.add(results_folder(tmp_path / "results"))
    return blocks, added.cid


def read(stream: bytes, step: int = 1 << 20) -> tuple[CarReader, dict[CID, bytes]]:
    reader, found = CarReader(), {}
    for start in range(0, len(stream), step):
        found.update(reader.feed(stream[start : start + step]))
    reader.finish()
    return reader, found


def test_the_header_is_that_of_the_carv1_specification():
    root = CID.of(RAW, b"")
    known = bytes.fromhex("3aa265726f6f747381d82a582500") + root.binary + bytes.fromhex("6776657273696f6e01")
    assert header([root]) == known


def test_the_blocks_of_a_written_dag_are_read_back(stored):
    blocks, root = stored
    reader, found = read(b"".join(write_car([root], blocks)))
    assert reader.roots == (root,)
    assert found == blocks.blocks


@pytest.mark.parametrize("step", [1, 7, 4096])
def test_a_stream_may_arrive_in_pieces_of_any_size(step):
    blocks = MemoryBlocks()
    small = b"".join(write_car([blocks.folder([(b"a", blocks.raw(b"1")), (b"b", blocks.raw(b"2"))])], blocks))
    assert len(read(small, step)[1]) == 3


def test_blocks_are_written_depth_first_and_once_each():
    blocks = MemoryBlocks()
    leaf = blocks.raw(b"leaf")
    inner = blocks.folder([(b"x", leaf)])
    root = blocks.folder([(b"a", inner), (b"b", inner), (b"c", leaf), (b"d", blocks.raw(b"other"))])
    _, found = read(b"".join(write_car([root], blocks)))
    assert list(found) == [root, inner, leaf, CID.of(RAW, b"other")]


def test_a_stream_may_end_with_an_error_where_the_reader_accepts_it(stored):
    blocks, root = stored
    car = b"".join(write_car([root], blocks)) + error_section(b'{"Error": "gone"}')
    reader = CarReader(accept_error=True)
    assert len(reader.feed(car)) == len(CarReader().feed(car[: -len(error_section(b'{"Error": "gone"}'))]))
    assert reader.error == b'{"Error": "gone"}'
    with pytest.raises(InvalidContent, match="codec 0x200"):
        CarReader().feed(car)
    forged = car.replace(b"gone", b"fine")
    with pytest.raises(InvalidContent, match="codec 0x200"):
        CarReader(accept_error=True).feed(forged)


def test_a_missing_block_ends_the_stream_with_an_error(stored):
    blocks, root = stored
    del blocks.blocks[CID.of(RAW, b"out\n")]
    with pytest.raises(ContentNotFound, match=str(CID.of(RAW, b"out\n"))):
        list(write_car([root], blocks))


def test_a_tampered_block_is_refused(stored):
    blocks, root = stored
    stream = bytearray(b"".join(write_car([root], blocks)))
    stream[-1] ^= 1
    with pytest.raises(InvalidContent, match="does not match its hash"):
        read(bytes(stream))


@pytest.mark.parametrize("cut", [1, 100, 3000])
def test_a_truncated_stream_is_refused(stored, cut):
    blocks, root = stored
    stream = b"".join(write_car([root], blocks))
    with pytest.raises(InvalidContent, match="truncated"):
        read(stream[:-cut])


def test_an_empty_stream_is_refused():
    with pytest.raises(InvalidContent, match="truncated"):
        CarReader().finish()


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (section(CID.of(0x71, b"x"), b"x"), "codec 0x71"),
        (section(CID(b"\x01\x55\x13\x04abcd"), b"x"), "hash function 0x13"),
        (
            section(CID.of(RAW, blob(1 << 20, 1) * 2 + b"x"), blob(1 << 20, 1) * 2 + b"x"),
            "the limit is 2097152",
        ),
        (b"\xff\xff\xff\x7f", "the limit is 2097152"),
        (b"\xff" * 10, "malformed"),
        (b"\x00", "empty section"),
        (b"\x05abcde", "has no CID"),
    ],
    ids=["dag-cbor", "sha2-512", "over 2 MiB", "far over 2 MiB", "endless length", "empty", "no CID"],
)
def test_bad_sections_are_refused_with_the_reason(block, message):
    reader = CarReader()
    reader.feed(header([CID.of(RAW, b"")]))
    with pytest.raises(InvalidContent, match=message):
        reader.feed(block)


def test_a_block_of_exactly_2_mib_is_accepted():
    data = blob(1 << 20, 1) * 2
    reader = CarReader()
    assert reader.feed(header([]) + section(CID.of(RAW, data), data)) == [(CID.of(RAW, data), data)]


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (b"\x0a\xa1\x67version\x02", "version 2 is not supported"),
        (b"\x03\xa1\x61x", "unknown or repeated"),
        (b"<!DOCTYPE html>" * 10, "malformed"),
        (b"\xff\xff\x7f", "header is longer"),
    ],
)
def test_a_stream_that_is_no_car_is_refused(stream, message):
    with pytest.raises(InvalidContent, match=f"not a CAR stream.*{message}"):
        CarReader().feed(stream)


def test_cids_of_version_0_are_read():
    cid = CID(CID.of(DAG_PB, b"block").binary[2:])
    assert CarReader().feed(header([cid]) + section(cid, b"block")) == [(cid, b"block")]


def test_small_pieces_are_joined_into_batches():
    pieces = [b"a" * 3, b"b" * 3, b"c" * 9, b"", b"d"]
    assert list(batches(iter(pieces), 5)) == [b"aaabbb", b"c" * 9, b"d"]
    assert list(batches(iter([]), 5)) == []
