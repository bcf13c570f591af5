"""Makes the test vectors of docs/bprotocol.md: `python -m tests.support.protocol_vectors` writes them."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bacalhau_p2p.bprotocol import codec
from bacalhau_p2p.bprotocol.codec import Envelope, MessageID
from bacalhau_p2p.bprotocol.messages import BROADCAST_CARRIERS
from bacalhau_p2p.bprotocol.proposals import encode_proposal
from bacalhau_p2p.executors.results import ResultsFolder
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.identity.sealing import seal
from bacalhau_p2p.ipfs.files.importer import cid_of, iterate_blocks
from bacalhau_p2p.ipfs.format.unixfs import Folder, decode
from bacalhau_p2p.model.execution import Proposal, RunOutput
from bacalhau_p2p.model.job import ResultPath
from tests.support.peers.example_messages import EXAMPLES

FOLDER = Path(__file__).parents[1] / "bprotocol" / "vectors"

PAGE = Path(__file__).parents[2] / "docs" / "bprotocol.md"
BEGIN, END = "<!-- vectors -->", "<!-- end of vectors -->"

REQUESTER = Identity.generate(b"\x01" * 32)
COMPUTE = Identity.generate(b"\x02" * 32)
STDOUT, STDERR, EXIT_CODE, RESULT_FILE = b"hello\n", b"", 3, b"42\n"
MODULE = b"\0asm\x01\0\0\0"
"""The smallest module."""


def envelopes() -> dict[str, Any]:
    """One envelope of each kind, in hex, by its kind. Broadcast kinds have no addressee."""
    found = {}
    for number, message in enumerate(EXAMPLES):
        to = None if message.carrier in BROADCAST_CARRIERS else REQUESTER.peer_id
        envelope = Envelope(id=MessageID(bytes([number]) * 16), message=message, to=to, sent=1.5e9)
        found[message.kind] = codec.encode_frame(envelope).hex()
    return found


def results_folder() -> dict[str, Any]:
    """The results folder of a run that prints `hello`, exits with 3 and writes one file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ResultsFolder(folder, [ResultPath(name="outputs", path="/outputs")]) as results:
            results.stdout.write(STDOUT)
            (folder / "outputs" / "answer").write_bytes(RESULT_FILE)
            results.finish(EXIT_CODE)
        root = cid_of(folder)
        blocks = dict(iterate_blocks(folder))
        decoded = decode(root, blocks[root])
        assert isinstance(decoded, Folder)
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes().hex()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
    return {
        "files": files,
        "cid": str(root),
        "entries": {entry.name: str(entry.cid) for entry in decoded.entries},
        "root": blocks[root].hex(),
    }


def plaintext() -> bytes:
    """The proposal of that folder, ready to be sealed."""
    folder = results_folder()
    proposal = Proposal(
        job_id="j-1",
        execution_id="e-1",
        node_id=COMPUTE.peer_id,
        result_cid=folder["cid"],
        entries=folder["entries"],
        output=RunOutput(exit_code=EXIT_CODE, stdout=STDOUT, stderr=STDERR),
        started=1.5e9,
        ended=1.5e9 + 2,
    )
    return encode_proposal(proposal, bytes.fromhex(folder["root"]))


def sealed_proposal() -> dict[str, Any]:
    """A proposal and its sealed form, which is another one each time."""
    return {
        "requester_seed": REQUESTER.seed.hex(),
        "requester": REQUESTER.peer_id,
        "compute": COMPUTE.peer_id,
        "plaintext": plaintext().hex(),
        "sealed": seal(REQUESTER.peer_id, plaintext()).hex(),
    }


def deterministic_random() -> dict[str, Any]:
    """The first bytes that `random_get` gives to a module in deterministic mode."""
    seed = hashlib.sha256(MODULE).digest()
    drawn = [hashlib.shake_256(seed + draw.to_bytes(8, "little")).digest(64) for draw in (1, 2)]
    return {"module": MODULE.hex(), "first_64": drawn[0].hex(), "next_64": drawn[1].hex()}


def vectors() -> dict[str, dict[str, Any]]:
    """All vectors, by the name of their file."""
    return {
        "envelopes": envelopes(),
        "results_folder": results_folder(),
        "sealed_proposal": sealed_proposal(),
        "deterministic_random": deterministic_random(),
    }


def shown(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The vectors as the page shows them: everything but the long texts of the sealed proposal."""
    folder, random, sealed = (
        found[name] for name in ("results_folder", "deterministic_random", "sealed_proposal")
    )
    lines = [
        *(f"{kind} {frame}" for kind, frame in found["envelopes"].items()),
        "",
        *(f"file {name} {content or '(empty)'}" for name, content in folder["files"].items()),
        *(f"entry {name} {cid}" for name, cid in folder["entries"].items()),
        f"root {folder['root']}",
        f"cid {folder['cid']}",
        "",
        *(f"{name} {sealed[name]}" for name in ("requester_seed", "requester", "compute")),
        "",
        *(f"{name} {value}" for name, value in random.items()),
    ]
    return "\n".join(["```text", *lines, "```"])


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    found = vectors()
    for name, content in found.items():
        (FOLDER / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{shown(found)}\n\n{END}{after}")


if __name__ == "__main__":
    main()
