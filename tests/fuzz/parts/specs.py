"""Specs of large jobs as a requester delivers them, under the CID that it announced."""

from __future__ import annotations

import json
from random import Random

from cbor2 import dumps, loads

from bacalhau_p2p.bprotocol.outlines import decode_spec, encoded_cid, large_spec
from bacalhau_p2p.errors import RemoteProtocolError
from tests.fuzz.mutation import mutated, mutated_bytes
from tests.support.machines.compute_bench import large_job


class Specs:
    def __init__(self) -> None:
        large = large_spec(large_job(5000, Constraints=[{"Key": "zone", "Operator": "=", "Values": ["a"]}]))
        assert large is not None
        self._outline, self._encoded = large.outline, large.encoded

    def close(self) -> None:
        pass

    def run(self, rng: Random) -> bool:
        if rng.random() < 0.5:
            encoded = mutated_bytes(self._encoded, rng, rng.choice((0, 1, 2)))
        else:
            encoded = dumps(mutated(loads(self._encoded), rng, rng.choice((0, 1, 2))))
        outline = self._outline.replace(spec_cid=encoded_cid(encoded), spec_size=len(encoded))
        try:
            spec = decode_spec(outline, encoded)
        except RemoteProtocolError:
            return False
        json.loads(spec.model_dump_json(by_alias=True))
        large_spec(spec)
        return True
