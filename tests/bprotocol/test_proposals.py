"""The plaintext of a sealed proposal."""

from __future__ import annotations

import cbor2
import pytest

from bacalhau_p2p.bprotocol.proposals import decode_proposal, encode_proposal
from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.model.execution import Proposal

PROPOSAL = Proposal(
    job_id="j", execution_id="e", node_id="bob", result_cid="bafy", entries={"stdout": "bafy-1"}, started=1.5
)


def test_a_proposal_decodes_to_what_was_encoded():
    assert decode_proposal(encode_proposal(PROPOSAL)) == PROPOSAL


def test_the_plaintext_has_the_keys_of_the_specification():
    plain = cbor2.loads(encode_proposal(PROPOSAL))
    assert set(plain) == {
        "JobID",
        "ExecutionID",
        "NodeID",
        "ResultCID",
        "Entries",
        "Output",
        "Started",
        "Ended",
    }


@pytest.mark.parametrize(
    "plaintext", [b"", b"\xff", cbor2.dumps([]), cbor2.dumps({}), cbor2.dumps({"JobID": 7})], ids=bytes.hex
)
def test_a_malformed_proposal_is_the_peers_fault(plaintext):
    with pytest.raises(RemoteProtocolError):
        decode_proposal(plaintext)
