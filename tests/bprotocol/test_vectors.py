"""The test vectors of the protocol's document hold, for those who write another implementation."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
import wasmtime

from bacalhau_p2p.bprotocol import codec
from bacalhau_p2p.bprotocol.codec import Envelope
from bacalhau_p2p.bprotocol.messages import BROADCAST_CARRIERS, KINDS
from bacalhau_p2p.bprotocol.proposals import decode_proposal
from bacalhau_p2p.executors.wasm.child.wasi import DeterministicWasi
from bacalhau_p2p.identity.sealing import unseal
from tests.support import protocol_vectors as made

GUEST = """
(module
  (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "draw") (drop (call $random_get (i32.const 0) (i32.const 64)))))
"""


def vector(name: str) -> dict[str, Any]:
    return json.loads((made.FOLDER / f"{name}.json").read_text())


def test_there_is_an_envelope_of_each_kind():
    assert set(vector("envelopes")) == set(KINDS)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_an_envelope_is_read_and_written_as_in_its_vector(kind):
    frame = bytes.fromhex(vector("envelopes")[kind])
    assert frame.hex() == made.envelopes()[kind]
    envelope = codec.decode_frame(frame)
    assert envelope.message.kind == kind
    if envelope.message.carrier in BROADCAST_CARRIERS:
        (announced,) = codec.decode_broadcast(b"\x81" + frame)
        assert isinstance(announced, Envelope)
    else:
        assert envelope.to == made.REQUESTER.peer_id


def test_a_results_folder_has_the_cid_of_its_vector():
    assert made.results_folder() == vector("results_folder")


def test_the_requester_can_open_the_sealed_proposal():
    sealed = vector("sealed_proposal")
    plaintext = unseal(made.REQUESTER, bytes.fromhex(sealed["sealed"]))
    assert plaintext.hex() == sealed["plaintext"] == made.plaintext().hex()
    proposal = decode_proposal(plaintext)
    assert proposal.result_cid == vector("results_folder")["cid"]
    assert (proposal.output.exit_code, proposal.node_id) == (made.EXIT_CODE, made.COMPUTE.peer_id)
    assert (sealed["requester_seed"], sealed["requester"]) == (
        made.REQUESTER.seed.hex(),
        made.REQUESTER.peer_id,
    )


def test_deterministic_modules_draw_the_random_bytes_of_the_vector():
    engine = wasmtime.Engine()
    store, linker = wasmtime.Store(engine), wasmtime.Linker(engine)
    expected = vector("deterministic_random")
    DeterministicWasi(hashlib.sha256(bytes.fromhex(expected["module"])).digest()).define(linker)
    exports = linker.instantiate(store, wasmtime.Module(engine, GUEST)).exports(store)
    for name in ("first_64", "next_64"):
        exports["draw"](store)
        assert exports["memory"].read(store, 0, 64).hex() == expected[name]


def test_the_page_shows_the_vectors():
    names = ("envelopes", "results_folder", "sealed_proposal", "deterministic_random")
    assert made.shown({name: vector(name) for name in names}) in made.PAGE.read_text()
