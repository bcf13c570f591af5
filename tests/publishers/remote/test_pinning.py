from __future__ import annotations

import pytest
import trio

from bacalhau_p2p.errors import PeerUnreachable, PublisherError
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.node import open_node
from bacalhau_p2p.publishers.remote.pinning import MAX_DELEGATES
from bacalhau_p2p.settings import Settings
from tests.support.servers.pinning_services import ADDRESSES, LIMITS, publish
from tests.support.waiting import until


async def test_a_pin_request_has_origins_name_and_ids(pinning, content, result):
    await publish(pinning.publisher(content, LIMITS), result)
    assert pinning.pins == {
        "r/1": {
            "cid": result,
            "name": "j-1/e-1",
            "origins": ADDRESSES,
            "meta": {"job": "j-1", "execution": "e-1"},
        }
    }
    assert pinning.asked == ["GET /psa/pins", "POST /psa/pins", "GET /psa/pins/r%2F1"]


async def test_an_existing_pin_is_not_requested_again(pinning, content, result):
    for _ in range(2):
        await publish(pinning.publisher(content, LIMITS), result)
    assert len(pinning.pins) == 1


async def test_a_failed_pin_is_an_error_with_its_reason(pinning, content, result):
    pinning.states = ["queued", "pinning", "failed"]
    with pytest.raises(PublisherError, match="pinning failed: no provider found"):
        await publish(pinning.publisher(content, LIMITS), result)


async def test_a_pinning_service_fetches_over_the_connection_to_its_delegate(pinning, tmp_path):
    """The service's peer knows no address of ours: it has the result because we dialled it."""
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "stdout").write_bytes(b"hello\n" * 100_000)
    alone = {"swarm_host": "127.0.0.1", "swarm_port": 0, "requester": False, "compute": False}
    async with (
        open_node(Settings(data_dir=tmp_path / "service", **alone)) as theirs,
        open_node(Settings(data_dir=tmp_path / "ours", **alone)) as ours,
    ):
        cid = str((await ours.content.add(folder, pin_owner="execution")).cid)
        pinning.states, pinning.delegates = ["queued"], list(theirs.addresses)

        async def fetch_as_the_service():
            await until(lambda: theirs.transport.peers)
            await theirs.content.fetch(CID.parse(cid))
            pinning.states = ["pinned"]

        publisher = pinning.publisher(ours.content, LIMITS, connect=ours.transport.connect)
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fetch_as_the_service)
                await publish(publisher, cid)
        assert await theirs.content.has(CID.parse(cid))


async def test_each_delegate_is_dialled_once_while_the_service_is_polled(pinning, content, result):
    dialled = []

    async def connect(address):
        dialled.append(address)
        if address.startswith("/ip4/203"):
            raise PeerUnreachable("no route")
        await trio.sleep_forever()

    pinning.states = ["queued", "queued", "queued", "pinning", "pinned"]
    pinning.delegates = ["/ip4/203.0.113.1/tcp/1/p2p/a", "/dns4/hangs/tcp/1/p2p/b"]
    with trio.fail_after(8):
        published = await publish(pinning.publisher(content, LIMITS, connect=connect), result)
    assert published.cid == result
    assert sorted(dialled) == sorted(pinning.delegates)


@pytest.mark.parametrize(
    ("delegates", "expected"),
    [
        (None, 0),
        ("/ip4/203.0.113.1/tcp/1/p2p/a", 0),
        ([1, None, {}, "x" * 10_000 + "/p2p/a", "/ip4/203.0.113.1/tcp/1"], 0),
        ([f"/ip4/203.0.113.1/tcp/{port}/p2p/a" for port in range(1, 1000)], MAX_DELEGATES),
    ],
)
async def test_malformed_delegates_are_ignored(pinning, content, result, delegates, expected):
    dialled = []

    async def connect(address):
        dialled.append(address)

    pinning.states, pinning.delegates = ["queued", "queued", "pinned"], delegates
    await publish(pinning.publisher(content, LIMITS, connect=connect), result)
    assert len(dialled) == expected


async def test_the_delegates_of_an_existing_pin_are_not_dialled(pinning, content, result):
    async def connect(address):
        raise AssertionError("dialled")

    pinning.states = ["pinned"]
    await publish(pinning.publisher(content, LIMITS, connect=connect), result)
