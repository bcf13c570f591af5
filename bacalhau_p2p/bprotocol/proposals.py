"""The plaintext of a sealed proposal: the model's Proposal as one CBOR map."""

from __future__ import annotations

from cbor2 import dumps
from pydantic import ValidationError

from bacalhau_p2p.bprotocol.codec import MAX_DEPTH
from bacalhau_p2p.encoding.cbor import strict_loads
from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.model.execution import Proposal


def encode_proposal(proposal: Proposal) -> bytes:
    """The plaintext to seal."""
    return dumps(proposal.to_wire())


def decode_proposal(plaintext: bytes) -> Proposal:
    """The proposal in a plaintext. Raises RemoteProtocolError."""
    try:
        return Proposal.from_wire(strict_loads(plaintext, max_depth=MAX_DEPTH))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise RemoteProtocolError(f"malformed proposal: {first['loc']}: {first['msg']}") from error
