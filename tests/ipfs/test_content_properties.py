"""Properties that hold for any bytes: decoders fail in one way only, and round trips change nothing."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from bacalhau_p2p.errors import ContentTooLarge, InvalidCID, InvalidContent, RemoteProtocolError
from bacalhau_p2p.ipfs.exchange.wire import Answer, Request, take_message
from bacalhau_p2p.ipfs.files.export import export
from bacalhau_p2p.ipfs.format.car import CarReader, header, section, write_car
from bacalhau_p2p.ipfs.format.cid import CID, DAG_PB, RAW
from bacalhau_p2p.ipfs.format.dag_pb import PBLink, encode_block, encode_directory, encode_file, encode_shard
from bacalhau_p2p.ipfs.format.dag_stat import dag_stat
from bacalhau_p2p.ipfs.format.profiles import Profile
from bacalhau_p2p.ipfs.format.unixfs import decode
from tests.support.blocks.dag_makers import MemoryBlocks, tree

LEAF = CID.of(RAW, b"leaf")
VALID_BLOCKS = [
    encode_block([PBLink(LEAF, b"a", 4), PBLink(LEAF, b"b", 4)], encode_directory()),
    encode_block([PBLink(LEAF, b"", 4)] * 3, encode_file(12, [4, 4, 4])),
    encode_block([PBLink(LEAF, b"00a", 4), PBLink(LEAF, b"FF", 4)], encode_shard(1 | 1 << 255, 256)),
]
SAMPLE_REQUEST = b"\xa2\x62op\x64have\x63cid\x58\x24" + LEAF.binary


def damaged(*valid: bytes) -> st.SearchStrategy[bytes]:
    """Bytes that are almost valid: some bytes changed, or truncated; or any bytes."""

    @st.composite
    def strategy(draw: st.DrawFn) -> bytes:
        block = bytearray(draw(st.sampled_from(valid)))
        for _ in range(draw(st.integers(0, 3))):
            block[draw(st.integers(0, len(block) - 1))] = draw(st.integers(0, 255))
        return bytes(block[: draw(st.integers(0, len(block)))]) if draw(st.booleans()) else bytes(block)

    return strategy() | st.binary(max_size=200)


@given(damaged(*VALID_BLOCKS))
def test_any_block_is_decoded_or_refused_as_invalid_content(block):
    with contextlib.suppress(InvalidContent, ContentTooLarge):
        decode(CID.of(DAG_PB, block), block)


@given(damaged(header([LEAF]) + section(LEAF, b"leaf") + section(LEAF, b"leaf")))
def test_any_stream_is_read_as_a_car_or_refused_as_invalid_content(stream):
    reader = CarReader()
    try:
        blocks = reader.feed(stream)
        reader.finish()
    except InvalidContent:
        return
    assert all(cid.verify(block) for cid, block in blocks)


@given(damaged(SAMPLE_REQUEST))
def test_any_message_is_decoded_or_refused_as_a_fault_of_the_peer(payload):
    for read in (Request.decode, Answer.decode, lambda data: take_message(bytearray(data))):
        with contextlib.suppress(RemoteProtocolError):
            read(payload)


@given(st.binary(max_size=60) | damaged(LEAF.binary, LEAF.binary[2:], CID.of(0x71, b"").binary))
def test_any_bytes_are_refused_or_a_cid_that_survives_printing_and_parsing(data):
    try:
        cid = CID(data)
    except InvalidCID:
        return
    assert bytes(CID.parse(str(cid))) == data


@given(st.text(max_size=80))
def test_any_text_is_parsed_as_a_cid_or_refused(text):
    with contextlib.suppress(InvalidCID):
        CID.parse(text)


names = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=20
).filter(lambda name: name not in (".", ".."))
trees = st.recursive(
    st.binary(max_size=300),
    lambda inner: st.dictionaries(names, inner, max_size=5),
    max_leaves=20,
)


def write(path: Path, content: object) -> None:
    if isinstance(content, dict):
        path.mkdir()
        for name, inner in content.items():
            write(path / name, inner)
    else:
        assert isinstance(content, bytes)
        path.write_bytes(content)


@settings(max_examples=60, deadline=None)
@given(trees, st.integers(1, 100), st.integers(2, 5), st.integers(0, 400))
def test_any_tree_survives_import_and_export_with_any_profile(content, chunk, links, shard_above):
    profile = Profile(name="odd", chunk=chunk, links=links, shard_above=shard_above)
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        write(here / "in", content)
        blocks = MemoryBlocks()
        added = blocks.add(here / "in", hidden=True, profile=profile)
        sums = dag_stat(added.cid, blocks)
        assert (sums.bytes, sums.blocks, sums.missing) == (added.size, len(blocks.blocks), ())
        export(added.cid, here / "out", blocks)
        if isinstance(content, bytes):
            assert (here / "out").read_bytes() == content
        else:
            assert tree(here / "out") == tree(here / "in")
        received = CarReader()
        carried = dict(received.feed(b"".join(write_car([added.cid], blocks))))
        received.finish()
        assert carried == blocks.blocks
