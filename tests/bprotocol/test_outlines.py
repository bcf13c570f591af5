"""Specs of large jobs: what is announced instead, and what is taken for a spec."""

from __future__ import annotations

import pytest
from cbor2 import dumps

from bacalhau_p2p.bprotocol.codec import Envelope, MessageID, decode_broadcast, encode_broadcast
from bacalhau_p2p.bprotocol.messages import JobAnnounced, JobOutlined
from bacalhau_p2p.bprotocol.outlines import (
    MAX_ANNOUNCED,
    announcement_with,
    decode_spec,
    encoded_cid,
    large_spec,
    with_spec,
)
from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.model.base import JobID
from bacalhau_p2p.model.job import JobSpec, SpecConfig, Task
from bacalhau_p2p.model.outline import MAX_ENCODED_SPEC, JobOutline
from bacalhau_p2p.model.validation import size_of
from tests.support.machines.compute_bench import SMALL, large_job, small_job

SPEC = large_job(200 * 1024)
LARGE = large_spec(SPEC)
TERMS = {"job_id": JobID("j-1"), "bids_wanted": 3, "round": 2, "chance": 0.5, "deadline": 60.0}
OUTLINED = JobOutlined(outline=LARGE.outline, **TERMS)


def outline_of(encoded: bytes) -> JobOutline:
    """The outline of the spec, with the CID and size of these bytes."""
    return LARGE.outline.replace(spec_cid=encoded_cid(encoded), spec_size=len(encoded))


def test_small_specs_are_announced_as_they_are():
    spec = large_job(MAX_ANNOUNCED - size_of(small_job(task={"Env": {"D0": ""}})))
    assert size_of(spec) == MAX_ANNOUNCED
    assert large_spec(spec) is None
    assert large_spec(large_job(MAX_ANNOUNCED)) is not None


def test_the_announcement_of_a_large_job_is_small():
    announcement = encode_broadcast([Envelope(id=MessageID(bytes(16)), message=OUTLINED)])
    assert len(announcement) < 1000
    (decoded,) = decode_broadcast(announcement)
    assert decoded.message == OUTLINED


def test_an_outline_with_its_spec_is_the_announcement_of_a_small_job():
    announcement = announcement_with(OUTLINED, LARGE.encoded)
    assert announcement == with_spec(OUTLINED, SPEC) == JobAnnounced(spec=SPEC, **TERMS)


def test_the_same_spec_has_the_same_cid_after_a_restart_of_its_requester():
    again = type(SPEC).model_validate_json(SPEC.model_dump_json(by_alias=True))
    assert large_spec(again) == LARGE


@pytest.mark.parametrize(
    "encoded", [b"", LARGE.encoded[:-1], LARGE.encoded + b"\0", bytes(len(LARGE.encoded))]
)
def test_other_bytes_than_those_that_were_outlined_are_refused(encoded):
    with pytest.raises(RemoteProtocolError, match="not those of the spec that was outlined"):
        announcement_with(OUTLINED, encoded)


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"\xff", "not plain CBOR"),
        (dumps([]), "malformed spec"),
        (dumps({"Tasks": []}), "malformed spec"),
        (dumps({**SPEC.to_wire(), "Later": float("inf")}), "not finite"),
        (dumps(SPEC.to_wire()) + b"\0", "bytes after the end"),
        (dumps({**SPEC.to_wire(), "Labels": {f"k{n}": "x" * 4000 for n in range(20)}}), "the limit is"),
    ],
)
def test_what_is_no_spec_is_refused_though_it_has_the_cid(encoded, reason):
    with pytest.raises(RemoteProtocolError, match=reason):
        decode_spec(outline_of(encoded), encoded)


def test_the_spec_of_another_job_is_refused_though_it_has_the_cid():
    encoded = dumps(large_job(5000, Constraints=[]).replace(tasks=small_job(cpu="4").tasks).to_wire())
    with pytest.raises(RemoteProtocolError, match="not that of the spec: resources differs"):
        decode_spec(outline_of(encoded), encoded)


def test_an_outline_of_any_size_is_refused():
    constraint = {"Key": "k" * 200, "Operator": "=", "Values": ["x" * 3000]}
    spec = small_job(Constraints=[constraint] * 4)
    outline = LARGE.outline.replace(constraints=spec.constraints)
    message = JobOutlined(outline=outline, **TERMS)
    (refused,) = decode_broadcast(encode_broadcast([Envelope(id=MessageID(bytes(16)), message=message)]))
    assert "the limit is 8192" in str(refused)


def test_every_spec_that_is_accepted_can_be_encoded():
    """Floats take most, compared with JSON: nine bytes for three and a comma."""
    engine = SpecConfig(type="any", params={"numbers": [1.5] * 19_000})
    spec = JobSpec(tasks=(Task(engine=engine, env={f"D{n}": "\N{SNOWMAN}" * 19_000 for n in range(3)}),))
    assert size_of(spec) < len(large_spec(spec).encoded) < MAX_ENCODED_SPEC
    assert large_spec(SMALL) is None
