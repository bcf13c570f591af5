"""What a peer controls once Noise has decrypted it: Yamux and direct frames."""

from __future__ import annotations

from random import Random

from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.transports.libp2p.direct.frames import FrameReader
from bacalhau_p2p.transports.libp2p.yamux.frames import DATA, FrameParser, encode_header
from tests.fuzz.mutation import mutated_bytes


class Streams:
    def __init__(self) -> None:
        data = b"x" * 300
        self._yamux = b"".join(
            encode_header(kind, flags, stream, len(data) if kind == DATA else 7)
            + (data if kind == DATA else b"")
            for kind in range(4)
            for flags in (0, 1, 2, 4, 8)
            for stream in (0, 1, 2)
        )
        self._direct = b"\x05hello\x80\x02" + bytes(256) + b"\0"

    def run(self, rng: Random) -> bool:
        stream, parser = rng.choice(((self._yamux, FrameParser()), (self._direct, FrameReader())))
        changed = mutated_bytes(stream, rng, rng.choice((0, 1, 2, 8)))
        step = rng.choice((1, 5, 12, 13, 100, 1 << 16))
        taken = 0
        try:
            for start in range(0, len(changed), step):
                for frame in parser.feed(changed[start : start + step]):
                    taken += len(frame if isinstance(frame, bytes) else frame.payload)
        except RemoteProtocolError:
            return False
        assert taken <= len(changed)
        return True

    def close(self) -> None:
        pass
