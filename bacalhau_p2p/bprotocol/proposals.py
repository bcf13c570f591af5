"""The plaintext of a sealed proposal: one CBOR map of the Proposal of the model and the root of its folder.

The root block ties the entries, which verifiers may compare one by one, to the CID that is published: what
was verified is what everybody gets.
"""

from __future__ import annotations

from cbor2 import dumps
from pydantic import ValidationError

from bacalhau_p2p.bprotocol.codec import MAX_DEPTH
from bacalhau_p2p.encoding.cbor import strict_loads
from bacalhau_p2p.errors import ContentError, RemoteProtocolError
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.unixfs import Folder, decode
from bacalhau_p2p.model.execution import INLINE_OUTPUT_LIMIT, Proposal

MAX_ROOT = 96 * 1024
"""Bytes of the root block of a results folder: 259 entries with the longest names need 81 KiB."""

_ROOT = "Root"


def encode_proposal(proposal: Proposal, root: bytes) -> bytes:
    """The plaintext to seal. `root` is the block with the CID `result_cid`."""
    wire = proposal.to_wire()
    wire["Usage"] = proposal.usage and proposal.usage.to_wire()
    for name in ("Walls", "Usage"):
        if not wire[name]:
            del wire[name]  # optional
    return dumps({**wire, _ROOT: root})


def decode_proposal(plaintext: bytes) -> Proposal:
    """The proposal in a plaintext, without the root block.

    Raises RemoteProtocolError, also when the root block is not that of a folder with this CID and exactly
    these entries.
    """
    try:
        wire = strict_loads(plaintext, max_depth=MAX_DEPTH)
        proposal = Proposal.from_wire(wire)
        if max(len(proposal.output.stdout), len(proposal.output.stderr)) > INLINE_OUTPUT_LIMIT:
            raise RemoteProtocolError(
                f"malformed proposal: more than {INLINE_OUTPUT_LIMIT} bytes of a stream"
            )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise RemoteProtocolError(f"malformed proposal: {first['loc']}: {first['msg']}") from error
    _check_root(proposal, wire.get(_ROOT) if isinstance(wire, dict) else None)
    return proposal


def _check_root(proposal: Proposal, root: object) -> None:
    if not isinstance(root, bytes):
        raise RemoteProtocolError("malformed proposal: it has no root block")
    if len(root) > MAX_ROOT:
        raise RemoteProtocolError(f"malformed proposal: its root block has more than {MAX_ROOT} bytes")
    cid = CID.parse(proposal.result_cid)
    try:
        cid.require_match(root)
        folder = decode(cid, root)
    except ContentError as error:
        raise RemoteProtocolError(f"malformed proposal: {error}") from error
    if not isinstance(folder, Folder):
        raise RemoteProtocolError(f"malformed proposal: {cid} is not the root of a folder")
    if {entry.name: str(entry.cid) for entry in folder.entries} != dict(proposal.entries):
        raise RemoteProtocolError(f"malformed proposal: its entries are not those of the folder {cid}")
