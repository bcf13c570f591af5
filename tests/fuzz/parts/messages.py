"""Frames, broadcasts and proposals: what is accepted can be stored, read again and sent on."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from cbor2 import dumps, loads

from bacalhau_p2p.bprotocol import codec
from bacalhau_p2p.bprotocol.codec import Envelope, MessageID
from bacalhau_p2p.bprotocol.messages import BROADCAST_CARRIERS
from bacalhau_p2p.bprotocol.proposals import decode_proposal
from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.model.base import Model
from tests.fuzz.mutation import mutated, mutated_bytes
from tests.support import protocol_vectors
from tests.support.peers.example_messages import EXAMPLES


def example_frames() -> list[bytes]:
    """One frame of each kind."""
    return [
        codec.encode_frame(
            Envelope(
                id=MessageID(bytes(16)),
                message=message,
                to=None if message.carrier in BROADCAST_CARRIERS else protocol_vectors.REQUESTER.peer_id,
                sent=1.5e9,
            )
        )
        for message in EXAMPLES
    ]


class Messages:
    def __init__(self) -> None:
        self._frames = example_frames()
        self._values: list[Any] = [loads(frame) for frame in self._frames]
        self._proposal = protocol_vectors.plaintext()
        self._proposal_value: Any = loads(self._proposal)

    def run(self, rng: Random) -> bool:
        match rng.randrange(4):
            case 0:
                return _frame(mutated_bytes(rng.choice(self._frames), rng, rng.choice((1, 1, 2, 5))))
            case 1:
                return _frame(dumps(mutated(rng.choice(self._values), rng, rng.choice((0, 1, 1, 2, 4)))))
            case 2:
                values = [mutated(rng.choice(self._values), rng, rng.choice((0, 1))) for _ in range(3)]
                return _broadcast(mutated_bytes(dumps(values), rng, rng.choice((0, 0, 1))))
            case _:
                value = dumps(mutated(self._proposal_value, rng, rng.choice((0, 1, 1, 3))))
                return _proposal(mutated_bytes(value, rng, rng.choice((0, 0, 1))))

    def close(self) -> None:
        pass


def _frame(payload: bytes) -> bool:
    try:
        envelope = codec.decode_frame(payload)
    except RemoteProtocolError:
        return False
    _survives(envelope)
    return True


def _broadcast(payload: bytes) -> bool:
    try:
        envelopes = codec.decode_broadcast(payload)
    except RemoteProtocolError:
        return False
    accepted = [each for each in envelopes if isinstance(each, Envelope)]
    for envelope in accepted:
        _survives(envelope)
    return bool(accepted)


def _survives(envelope: Envelope) -> None:
    """It can be sent on and stored, and is the same afterwards."""
    again = codec.decode_frame(codec.encode_frame(envelope))
    assert again.message == envelope.message
    for value in vars(envelope.message).values():
        if isinstance(value, Model):  # a job, a node's info, a published result: these are stored as JSON
            text = value.model_dump_json(by_alias=True)
            json.loads(text, parse_constant=_refuse)
            assert type(value).model_validate_json(text) == value


def _proposal(plaintext: bytes) -> bool:
    try:
        proposal = decode_proposal(plaintext)
    except RemoteProtocolError:
        return False
    assert type(proposal).model_validate_json(proposal.model_dump_json(by_alias=True)) == proposal
    return True


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")
