"""Blocks, CARs, and messages of bitswap, the DHT and our exchange protocol."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from bacalhau_p2p.errors import ContentError, RemoteProtocolError
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.ipfs.dht import wire as dht
from bacalhau_p2p.ipfs.exchange import wire as exchange
from bacalhau_p2p.ipfs.exchange.bitswap import wire as bitswap
from bacalhau_p2p.ipfs.files.export import export
from bacalhau_p2p.ipfs.files.importer import iterate_blocks
from bacalhau_p2p.ipfs.format.car import CarReader, header, section
from bacalhau_p2p.ipfs.format.cid import CID, DAG_PB, RAW
from bacalhau_p2p.ipfs.format.limits import Limits
from bacalhau_p2p.ipfs.format.unixfs import decode
from tests.fuzz.mutation import mutated_bytes
from tests.support.blocks.dag_makers import MemoryBlocks

LIMITS = Limits(bytes=2_000_000)


class Content:
    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="fuzz-")
        source = Path(self._folder.name) / "source"
        (source / "inner").mkdir(parents=True)
        (source / "small").write_bytes(b"hello")
        (source / "inner" / "two blocks").write_bytes(bytes(300_000))
        self._blocks = list(dict(iterate_blocks(source)).items())
        self._nodes = [(cid, block) for cid, block in self._blocks if cid.codec == DAG_PB]
        root = self._blocks[-1][0]
        small = [(cid, block) for cid, block in self._blocks if len(block) < 2000]
        self._car = header([root]) + b"".join(section(cid, block) for cid, block in small)
        peer = Identity.generate(bytes(32)).peer_id
        contact = dht.Contact(peer, (f"/ip4/192.0.2.7/tcp/1235/p2p/{peer}",))
        self._dht = dht.Message(
            type=dht.MessageType.GET_PROVIDERS, key=dht.key_of(root), closer=(contact,), providers=(contact,)
        ).encode()
        wants = [bitswap.Want(cid=root), bitswap.Want(cid=root, have=True, send_dont_have=True)]
        self._bitswap = bitswap.Message(wants=wants, blocks=small, presences=[(root, True)]).encode()
        self._requests = [
            exchange.Request(operation=operation, cid=root).encode() for operation in exchange.Operation
        ] + [exchange.Answer(status=status).encode() for status in exchange.Status]

    def run(self, rng: Random) -> bool:
        tries: tuple[Callable[[Random], bool], ...] = (
            self._read_car,
            self._decode_block,
            self._export,
            lambda rng: _take(self._dht, dht.take_message, dht.Message.decode, rng),
            lambda rng: _take(self._bitswap, bitswap.take_message, bitswap.Message.decode, rng),
            lambda rng: _take(rng.choice(self._requests), exchange.take_message, _request_or_answer, rng),
            _parse_cid,
        )
        return rng.choice(tries)(rng)

    def close(self) -> None:
        self._folder.cleanup()

    def _read_car(self, rng: Random) -> bool:
        stream, reader = mutated_bytes(self._car, rng, rng.choice((0, 1, 1, 3))), CarReader()
        try:
            step = rng.choice((1, 7, 1000, 1 << 20))
            for start in range(0, len(stream), step):
                reader.feed(stream[start : start + step])
            reader.finish()
        except ContentError:
            return False
        return True

    def _decode_block(self, rng: Random) -> bool:
        _, block = rng.choice(self._nodes)
        changed = mutated_bytes(block, rng, rng.choice((1, 1, 2, 4)))
        try:
            decode(CID.of(DAG_PB, changed), changed, LIMITS)
        except ContentError:
            return False
        return True

    def _export(self, rng: Random) -> bool:
        """A DAG whose blocks are right and whose links are not."""
        blocks = MemoryBlocks()
        for cid, block in self._blocks:
            blocks.put(cid, block)
        _, block = rng.choice(self._nodes)
        changed = mutated_bytes(block, rng, rng.choice((1, 2)))
        root = CID.of(rng.choice((DAG_PB, DAG_PB, RAW)), changed)
        blocks.put(root, changed)
        with TemporaryDirectory(dir=self._folder.name) as folder:
            target = Path(folder) / "target"
            try:
                export(root, target, blocks, limits=LIMITS)
            except ContentError:
                assert not target.exists()
                return False
            assert {path.name for path in Path(folder).iterdir()} <= {"target"}
        return True


def _take(
    message: bytes,
    take: Callable[[bytearray], bytes | None],
    decode_body: Callable[[bytes], object],
    rng: Random,
) -> bool:
    buffer = bytearray(mutated_bytes(message, rng, rng.choice((0, 1, 1, 2, 4))))
    try:
        while (body := take(buffer)) is not None:
            decode_body(body)
    except (RemoteProtocolError, ContentError):
        return False
    return True


def _request_or_answer(body: bytes) -> None:
    exchange.Request.decode(body)
    exchange.Answer.decode(body)


def _parse_cid(rng: Random) -> bool:
    text = rng.choice(
        ("bafybeicydje64cvilprtsmkz5a7dngkswdm3twoilht7gnb25sibc4h56q", "Qm" + "a" * 44, "k" * 60)
    )
    changed = mutated_bytes(text.encode(), rng, rng.choice((0, 1, 3))).decode("utf-8", "replace")
    try:
        cid = CID.parse(changed)
    except ContentError:
        return False
    assert CID.parse(str(cid)) == cid
    return True
