"""Whatever the decoder accepts can be stored, read again equal, and sent on. The rest is refused alone."""

from __future__ import annotations

from dataclasses import replace

import cbor2
import pytest
from cbor2 import CBORSimpleValue, undefined
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bacalhau_p2p.bprotocol import codec, messages
from bacalhau_p2p.bprotocol.codec import Envelope, MessageID, RefusedEnvelope
from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.execution import Proposal
from bacalhau_p2p.model.state import ComputeState, UnknownState
from tests.support.peers.example_messages import EXAMPLES
from tests.support.results import result_cid

INF, NAN = float("inf"), float("nan")


def wire(kind: str) -> dict:
    """The envelope of an example as plain CBOR data."""
    (example,) = (example for example in EXAMPLES if example.kind == kind)
    return cbor2.loads(
        codec.encode_frame(Envelope(id=MessageID(b"i" * 16), message=example, to=PeerID("bob")))
    )


def changed(kind: str, path: str, value: object) -> dict:
    """An example with one value replaced, or added. `path` is like `spec.Tasks.0.Name`."""
    envelope = wire(kind)
    *parents, last = (int(part) if part.isdigit() else part for part in path.split("."))
    place = envelope["body"]
    for part in parents:
        place = place[part]
    if isinstance(place, list) and last == len(place):
        place.append(value)
    else:
        place[last] = value
    return envelope


def check_whole(envelope: Envelope) -> None:
    """It can be sent on, and stored as JSON and read again."""
    assert codec.decode_frame(codec.encode_frame(envelope)) == envelope
    message = envelope.message
    for name in type(message).model_fields:
        value = getattr(message, name)
        if hasattr(value, "model_dump_json"):
            assert type(value).model_validate_json(value.model_dump_json(by_alias=True)) == value


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=20)
    | st.sampled_from([undefined, CBORSimpleValue(99), b"i" * 16, 1e308, 2**63, "1" * 5000 + "x"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(value: object, path: tuple = ()) -> list[tuple]:
    """The paths of all values inside of `value`."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += places(item, (*path, key))
    return found


@given(st.data())
@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_is_accepted_can_be_stored_and_sent_on(data):
    envelope = wire(data.draw(st.sampled_from(EXAMPLES)).kind)
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(places(envelope)))
        place = envelope
        for part in path[:-1]:
            place = place[part]
        if data.draw(st.booleans()) and isinstance(place, dict):
            place[data.draw(st.text(max_size=5))] = data.draw(values)
        else:
            place[path[-1]] = data.draw(values)
    payload = cbor2.dumps(envelope)
    try:
        decoded = codec.decode_frame(payload)
    except RemoteProtocolError:
        return
    check_whole(decoded)
    assert codec.decode_broadcast(cbor2.dumps([envelope])) == [decoded]


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("bid", "load", INF),
        ("bid", "load", NAN),
        ("bid", "reserved_for", INF),
        ("bid", "round", 2**63),
        ("job_announced", "deadline", INF),
        ("job_announced", "deadline", 1e300),
        ("job_announced", "bids_wanted", 2**62),
        ("job_announced", "eligible", 2**62),
        ("job_announced", "spec.Tasks.0.Engine.Params.x", undefined),
        ("job_announced", "spec.Tasks.0.Engine.Params.x", CBORSimpleValue(99)),
        ("job_announced", "spec.Tasks.0.Engine.Params.x", NAN),
        ("job_announced", "spec.Tasks.0.Engine.Params.x", b"bytes"),
        ("job_announced", "spec.Tasks.0.Engine.Params.x", {1: 2}),
        ("job_announced", "spec.Tasks.0.Engine.Params.x", 2**64 - 1),
        ("job_announced", "spec.Tasks.0.Engine.Params.x", [0] * 20_001),
        ("job_announced", "spec.Tasks.0.Timeouts.ExecutionTimeout", "1" * 20_000 + "x"),
        ("result_published", "result.Location.Params.x", undefined),
        ("result_published", "result.CID", "../../ESCAPED/dir/x"),
        ("node_info", "info.Sent", NAN),
        ("node_info", "info.Compute.AvailableCapacity.CPU", INF),
        ("heartbeat", "later", undefined),
    ],
)
def test_values_that_cannot_be_kept_are_refused(kind, path, value):
    with pytest.raises(RefusedEnvelope) as refused:
        codec.decode_frame(cbor2.dumps(changed(kind, path, value)))
    assert (refused.value.id, refused.value.to, refused.value.kind) == (b"i" * 16, "bob", kind)


@pytest.mark.parametrize(
    ("kind", "path", "value", "kept"),
    [
        ("bid", "load", 1e308, 1.0),
        ("bid", "reserved_for", 1e308, messages.MAX_RESERVED_FOR),
        ("node_info", "info.Compute.RunningExecutions", -5, 0),
        ("heartbeat", "executions.0.message", b"x" * 5000, "x" * 4096),
        ("node_info", "info.Compute.MaxCapacity.CPU", 1e308, 10_000.0),
        ("node_info", "info.Compute.MaxCapacity.Memory", -1, 0),
        ("job_closed", "reason", "x" * 5000, "x" * messages.MAX_REASON),
    ],
)
def test_numbers_and_reasons_beyond_their_bounds_are_cut(kind, path, value, kept):
    envelope = codec.decode_frame(cbor2.dumps(changed(kind, path, value)))
    check_whole(envelope)
    found = cbor2.loads(codec.encode_frame(envelope))["body"]
    for part in path.split("."):
        found = found[int(part) if part.isdecimal() else part]
    assert found == kept


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("job_announced", "later"),
        ("job_announced", "spec.Later"),
        ("job_announced", "spec.Tasks.0.Later"),
        ("job_announced", "spec.Tasks.0.Engine.Later"),
        ("job_announced", "spec.Tasks.0.Network.Later"),
        ("job_announced", "spec.Tasks.0.Resources.Later"),
        ("job_announced", "spec.Deal.Later"),
        ("node_info", "info.Later"),
        ("node_info", "info.Compute.Later"),
        ("node_info", "info.Compute.MaxCapacity.Later"),
        ("result_published", "result.Later"),
        ("result_published", "result.Location.Later"),
        ("heartbeat", "executions.0.later"),
        ("reconcile", "executions.0.later"),
    ],
)
def test_unknown_keys_are_ignored_at_every_level(kind, path):
    expected = codec.decode_frame(cbor2.dumps(wire(kind)))
    assert codec.decode_frame(cbor2.dumps(changed(kind, path, {"of": ["a later", "version"]}))) == expected


def test_a_state_of_a_later_version_is_a_value_of_its_own():
    frame = cbor2.dumps(changed("heartbeat", "executions.0.state", "Paused"))
    (line,) = codec.decode_frame(frame).message.executions
    assert line.state is UnknownState.UNKNOWN
    frame = cbor2.dumps(changed("reconcile", "executions.0.state", "Suspected"))
    assert codec.decode_frame(frame).message.executions[0].state is UnknownState.UNKNOWN


@pytest.mark.parametrize("item", [7, {}, {"execution_id": ""}, {"execution_id": "e", "state": 5}, ["x"]])
def test_one_unusable_execution_does_not_hide_the_others(item):
    frame = cbor2.dumps(changed("heartbeat", "executions.1", item))
    assert [line.state for line in codec.decode_frame(frame).message.executions] == [ComputeState.RUNNING]


def test_malformed_and_surplus_addresses_are_left_out():
    (good,) = wire("job_announced")["body"]["addresses"]
    many = ["/ip4/1.2.3.4/tcp/5", b"x".hex(), "/" * 300, good, *[good] * 30]
    message = codec.decode_frame(cbor2.dumps(changed("job_announced", "addresses", many))).message
    assert set(message.addresses) == {good}
    assert len(message.addresses) <= 16


@pytest.mark.parametrize(
    "bad",
    [
        undefined,
        INF,
        cbor2.CBORTag(1, 0),
        CBORSimpleValue(99),
        {1: 1},
        changed("job_announced", "spec.Count", 0),
        changed("job_announced", "deadline", INF),
        {**wire("job_announced"), "later": undefined},
        {**wire("job_announced"), "kind": "later"},
        {**wire("job_announced"), "v": 2},
    ],
    ids=lambda bad: repr(bad)[:30],
)
def test_a_refused_envelope_does_not_take_its_neighbours_with_it(bad):
    first, last = wire("job_closed"), wire("job_announced")
    decoded = codec.decode_broadcast(cbor2.dumps([first, bad, last]))
    assert isinstance(decoded[1], RefusedEnvelope)
    assert [decoded[0].message.kind, decoded[2].message.kind] == ["job_closed", "job_announced"]


def test_a_specification_has_a_limited_size():
    envelope = changed("job_announced", "spec.Tasks.0.Engine.Params", {"x": "a" * 240_000})
    codec.decode_frame(cbor2.dumps(envelope))
    envelope = changed("job_announced", "spec.Tasks.0.Engine.Params", {"x": "a" * 263_000})
    with pytest.raises(RefusedEnvelope, match="the limit is 262144"):
        codec.decode_frame(cbor2.dumps(envelope))
    envelope = changed("job_announced", "spec.Tasks.0.Engine.Params", {"x": "\x01" * 60_000})
    with pytest.raises(RefusedEnvelope, match="the limit is 262144"):
        codec.decode_frame(cbor2.dumps(envelope))


def test_a_node_info_has_a_limited_size():
    labels = {f"label-{number}": "x" * 100 for number in range(60)}
    codec.decode_frame(cbor2.dumps(changed("node_info", "info.Labels", labels)))
    with pytest.raises(RefusedEnvelope, match="the limit is 8192"):
        codec.decode_frame(cbor2.dumps(changed("node_info", "info.later", "x" * 8192)))


@pytest.mark.parametrize(
    "changes", [{"Started": INF}, {"Ended": NAN}, {"Started": 1e308}, {"Output": {"ExitCode": 2**62}}]
)
def test_a_proposal_has_finite_times_and_codes(changes):
    known = {"JobID": "j", "ExecutionID": "e", "NodeID": "n", "ResultCID": result_cid("result")}
    Proposal.from_wire({**known, "Later": 1})
    with pytest.raises(ValueError, match=r"validation error"):
        Proposal.from_wire({**known, **changes})


def test_an_ack_says_what_was_refused():
    refusal = messages.Refusal(id=b"r" * 16, reason="unknown kind")
    message = messages.Ack(ids=(b"r" * 16,), refused=(refusal,))
    envelope = Envelope(id=MessageID(b"i" * 16), message=message, to=PeerID("bob"))
    assert codec.decode_frame(codec.encode_frame(envelope)) == envelope
    plain = cbor2.loads(codec.encode_frame(envelope))
    plain["body"]["ids"] += [b"short", "text", 7]
    plain["body"]["refused"] += [{"id": b"short", "reason": "x"}, 5]
    assert codec.decode_frame(cbor2.dumps(plain)) == replace(envelope, message=message)


def announced(tasks: object) -> bytes:
    return cbor2.dumps(changed("job_announced", "spec", {"Tasks": tasks}))


TASK = {"Engine": {"Type": "noop"}}


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (announced([{**TASK, "InputSources": [{}] * 29_000}]), "must have at most 256 entries"),
        (announced([{}] * 29_000), "must have at most 256 entries"),
        (announced([{**TASK, "Env": dict.fromkeys(map(str, range(60_000)), 0)}]), "at most 256 entries"),
        (cbor2.dumps(changed("heartbeat", "executions", [0] * 190_000)), "at most 10000 items"),
        (cbor2.dumps(changed("heartbeat", "executions", [0] * 9_000)), "more than 1000 items"),
        (cbor2.dumps([cbor2.CBORTag(1, 0)] * 101), "tags are not allowed"),
    ],
    ids=["inputs", "tasks", "environment", "too many executions", "unreadable executions", "tags"],
)
def test_faults_without_number_are_not_looked_for(payload, reason):
    """Each took more than a second of the event loop."""
    with pytest.raises(RemoteProtocolError, match=reason):
        codec.decode_frame(payload)
