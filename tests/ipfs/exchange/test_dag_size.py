"""The size of a DAG: as its root block claims it, and as far as it is stored."""

from __future__ import annotations

import random

import pytest
import trio

from bacalhau_p2p.errors import ContentTooLarge, InvalidContent
from bacalhau_p2p.ipfs.content.content import Content
from bacalhau_p2p.ipfs.exchange.dag_size import (
    FIRST_ALONE,
    ROOT_BLOCK_CONCURRENCY,
    claimed_size,
    fetch_root_block,
    stored_size,
)
from bacalhau_p2p.ipfs.exchange.exchange import Exchange
from bacalhau_p2p.ipfs.exchange.faults import PeerFault
from bacalhau_p2p.ipfs.files.importer import build, cid_of
from bacalhau_p2p.ipfs.format.cid import CID, DAG_PB, RAW
from bacalhau_p2p.ipfs.format.dag_pb import PBLink, encode_block, encode_directory
from bacalhau_p2p.ipfs.format.limits import Limits
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.testing.network import open_network
from tests.support.blocks.dag_makers import fill


@pytest.fixture
def store(tmp_path):
    with BlockStore(tmp_path / "blocks") as blocks:
        yield blocks


@pytest.fixture
def content(store):
    async def unreachable(peer, protocol):
        raise AssertionError("no peer may be asked")

    return Content(store, Exchange(store, unreachable))


@pytest.mark.parametrize("size", [0, 1, 1000, 262_144, 262_145, 3_000_000])
async def test_the_root_of_a_file_claims_its_exact_size(content, store, tmp_path, size):
    (tmp_path / "file").write_bytes(random.Random(1).randbytes(size))
    cid = (await content.add(tmp_path / "file", pin_owner="user")).cid
    assert claimed_size(cid, store.get(cid)) == size


async def test_the_root_of_a_folder_claims_slightly_more_than_its_files(content, store, tmp_path):
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    for number in range(20):
        (folder / "below" / str(number)).write_bytes(random.Random(number).randbytes(100_000))
    cid = (await content.add(folder, pin_owner="user")).cid
    claimed = claimed_size(cid, store.get(cid))
    assert 2_000_000 <= claimed <= 2_010_000


async def test_the_stored_size_counts_each_stored_block_once(content, store, tmp_path):
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    bodies = {number: random.Random(number).randbytes(100_000) for number in range(4)}
    for number, body in bodies.items():
        (folder / "below" / f"{number}").write_bytes(body)
        (folder / f"again-{number}").write_bytes(body)
    (folder / "large").write_bytes(random.Random(7).randbytes(600_000))
    large = cid_of(folder / "large")
    root = (await content.add(folder, pin_owner="user")).cid
    assert stored_size(root, store) == await content.stored_size(root) == 1_000_000
    store.delete(CID.of(RAW, bodies[1]))
    assert stored_size(root, store) == 900_000
    store.delete(large)  # and with it the blocks that only it links to
    assert stored_size(root, store) == 300_000
    store.delete(root)
    assert stored_size(root, store) == 0


def test_counting_the_stored_size_can_be_stopped(store):
    def stop():
        raise trio.TooSlowError

    with pytest.raises(trio.TooSlowError):
        stored_size(CID.of(RAW, b"x"), store, checkpoint=stop)


def test_a_folder_whose_links_claim_no_size_has_none():
    block = encode_block([PBLink(CID.of(RAW, b"x"), b"a", 0)], encode_directory())
    assert claimed_size(CID.of(DAG_PB, block), block) is None


def test_an_empty_file_claims_nothing_and_hides_no_other_claim(tmp_path):
    fill(tmp_path, 2)
    (tmp_path / "data").write_bytes(bytes(1000))
    added = build(tmp_path, lambda cid, block: None)
    assert claimed_size(added.cid, added.root) == 1000


def test_a_claim_above_the_limit_is_refused():
    block = encode_block([PBLink(CID.of(RAW, b"x"), b"a", 2**62)], encode_directory())
    with pytest.raises(ContentTooLarge):
        claimed_size(CID.of(DAG_PB, block), block, Limits(bytes=10**9))


def test_a_block_with_another_hash_is_refused():
    with pytest.raises(InvalidContent, match="do not match its hash"):
        claimed_size(CID.of(RAW, b"x"), b"y")


async def test_the_root_block_comes_from_the_first_peer_that_sends_it(autojump_clock):
    asked = []

    async def ask(peer, cid):
        asked.append(peer)
        if peer == "silent":
            await trio.sleep_forever()
        if peer == "late":
            await trio.sleep(1)
            return b"root"
        raise PeerFault("missing")

    peers = [PeerID(name) for name in ("silent", "late", *"abcdefgh")]
    assert await fetch_root_block(CID.of(RAW, b"root"), peers, ask) == b"root"
    assert trio.current_time() == pytest.approx(1 + FIRST_ALONE)
    assert sorted(asked) == sorted(peers)


async def test_if_the_first_peer_has_the_root_block_no_other_is_asked(autojump_clock):
    asked = []

    async def ask(peer, cid):
        asked.append(peer)
        await trio.sleep(FIRST_ALONE / 2)
        return b"root"

    assert await fetch_root_block(CID.of(RAW, b"root"), [PeerID("a"), PeerID("b")], ask) == b"root"
    assert asked == ["a"]


async def test_if_the_first_peer_does_not_have_it_others_are_asked_at_once(autojump_clock):
    async def ask(peer, cid):
        if peer == "b":
            return b"root"
        raise PeerFault("missing")

    assert await fetch_root_block(CID.of(RAW, b"root"), [PeerID("a"), PeerID("b")], ask) == b"root"
    assert await fetch_root_block(CID.of(RAW, b"root"), [PeerID("a")], ask) is None
    assert trio.current_time() == 0


async def test_the_number_of_peers_asked_at_the_same_time_is_bounded(autojump_clock):
    under_way = most = 0

    async def ask(peer, cid):
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await trio.sleep(1)
        under_way -= 1
        raise PeerFault("missing")

    peers = [PeerID(str(number)) for number in range(20)]
    assert await fetch_root_block(CID.of(RAW, b"root"), peers, ask) is None
    assert most == ROOT_BLOCK_CONCURRENCY


async def test_a_node_knows_the_size_of_content_that_only_a_peer_has_without_fetching_it(tmp_path):
    (tmp_path / "file").write_bytes(random.Random(1).randbytes(3_000_000))
    async with open_network(tmp_path, compute_nodes=1) as net:
        cid = CID.parse(await net.requester.add(tmp_path / "file"))
        content = net.compute[0].content
        before = content.used
        assert await content.claimed_size(cid, hints=[net.requester.peer_id]) == 3_000_000
        assert await content.claimed_size(cid) == 3_000_000  # it is connected to the requester
        assert content.used == before
        with trio.fail_after(10):
            assert await content.claimed_size(CID.of(RAW, b"nowhere")) is None
