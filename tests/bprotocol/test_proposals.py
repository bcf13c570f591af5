"""The plaintext of a sealed proposal."""

from __future__ import annotations

import cbor2
import pytest

from bacalhau_p2p.bprotocol.proposals import MAX_ROOT, decode_proposal, encode_proposal
from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.ipfs.files.importer import build
from bacalhau_p2p.ipfs.format.cid import CID, DAG_PB, RAW
from bacalhau_p2p.ipfs.format.dag_pb import PBLink, encode_block, encode_directory
from bacalhau_p2p.ipfs.format.hamt import shard_blocks
from bacalhau_p2p.ipfs.format.subtree import Subtree
from bacalhau_p2p.model.fields import MAX_ENTRIES, RESERVED_RESULTS
from bacalhau_p2p.model.usage import Usage
from tests.support.results import ResultsFolder, proposal_of, results_folder

HONEST = results_folder("truth", stderr="", exitCode="0")
LIE = results_folder("lie", stderr="", exitCode="0")
OTHER_ENTRIES = "its entries are not those of the folder"


def plaintext(folder: ResultsFolder, **changes: object) -> bytes:
    """The proposal of this folder, with changed values on the wire."""
    wire = cbor2.loads(encode_proposal(proposal_of(folder, "j", "e", "bob"), folder.root))
    return cbor2.dumps({**wire, **changes})


def test_a_proposal_decodes_to_what_was_encoded():
    proposal = proposal_of(HONEST, "j", "e", "bob").replace(started=1.5, walls=("seccomp",))
    assert decode_proposal(encode_proposal(proposal, HONEST.root)) == proposal


def test_a_proposal_says_what_was_used_and_only_what_was_measured():
    used = proposal_of(HONEST, "j", "e", "bob").replace(usage=Usage(cpu_seconds=0.5))
    encoded = encode_proposal(used, HONEST.root)
    assert cbor2.loads(encoded)["Usage"] == {"CPUSeconds": 0.5}
    assert decode_proposal(encoded) == used


def test_the_plaintext_has_the_keys_of_the_specification():
    assert set(cbor2.loads(plaintext(HONEST))) == {
        "JobID",
        "ExecutionID",
        "NodeID",
        "ResultCID",
        "Entries",
        "Output",
        "Started",
        "Ended",
        "Root",
    }


@pytest.mark.parametrize(
    "malformed", [b"", b"\xff", cbor2.dumps([]), cbor2.dumps({}), cbor2.dumps({"JobID": 7})], ids=bytes.hex
)
def test_a_malformed_proposal_is_the_peers_fault(malformed):
    with pytest.raises(RemoteProtocolError):
        decode_proposal(malformed)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Output": {"Stdout": bytes(2049)}}, "more than 2048 bytes"),
        ({"Started": float("inf")}, "not finite"),
        ({"ResultCID": LIE.cid}, "does not match its hash"),
        ({"ResultCID": LIE.cid, "Root": LIE.root}, OTHER_ENTRIES),
        ({"Root": LIE.root}, "does not match its hash"),
        ({"Entries": LIE.entries}, OTHER_ENTRIES),
        ({"Entries": {}}, OTHER_ENTRIES),
        ({"Entries": {**HONEST.entries, "more": LIE.cid}}, OTHER_ENTRIES),
        ({"Root": "text"}, "it has no root block"),
        ({"ResultCID": "../../ESCAPED/dir/x"}, "is not a CID"),
        ({"Entries": {"stdout": "../x"}}, "is not a CID"),
    ],
)
def test_the_entries_that_are_verified_are_those_of_the_folder_that_is_published(changes, reason):
    with pytest.raises(RemoteProtocolError, match=reason):
        decode_proposal(plaintext(HONEST, **changes))


def test_a_proposal_without_its_root_block_is_invalid():
    wire = cbor2.loads(plaintext(HONEST))
    del wire["Root"]
    with pytest.raises(RemoteProtocolError, match="it has no root block"):
        decode_proposal(cbor2.dumps(wire))


def test_a_result_is_a_folder_in_one_block():
    shards = list(shard_blocks({b"stdout": Subtree(CID.of(RAW, b""), 0)}))
    for codec, root in ((RAW, b"bytes"), (DAG_PB, shards[-1][1])):
        folder = ResultsFolder(str(CID.of(codec, root)), {}, root)
        with pytest.raises(RemoteProtocolError, match="is not the root of a folder"):
            decode_proposal(plaintext(folder))


def test_the_largest_results_folder_of_a_job_fits_into_a_proposal(tmp_path):
    for name in (*(f"{number:0255d}" for number in range(MAX_ENTRIES)), *RESERVED_RESULTS):
        (tmp_path / name).touch()
    added = build(tmp_path, lambda cid, block: None)
    assert len(added.root) <= MAX_ROOT
    entries = {name: str(cid) for name, cid in added.entries.items()}
    largest = plaintext(ResultsFolder(str(added.cid), entries, added.root))
    assert len(largest) < 255 * 1024
    assert decode_proposal(largest).entries == entries


def test_a_larger_root_block_is_refused():
    links = [PBLink(CID.of(RAW, b""), f"{number:0255d}".encode(), 0) for number in range(400)]
    root = encode_block(links, encode_directory())
    with pytest.raises(RemoteProtocolError, match="its root block has more than"):
        decode_proposal(plaintext(ResultsFolder(str(CID.of(DAG_PB, root)), {}, root)))
