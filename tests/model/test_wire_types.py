"""What peers send is bounded. `tests/bprotocol/test_accepted_messages.py` tests the types within messages."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError

from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.wire_types import (
    MAX_ADDRESSES,
    MAX_PARAM_DEPTH,
    MAX_PARAM_VALUES,
    PeerAddresses,
    Reason,
)

ADDRESS = "/ip4/1.2.3.4/tcp/5/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"


class Wire(BaseModel):
    addresses: PeerAddresses = ()
    reason: Reason = ""


def nested(depth: int) -> dict:
    value: dict = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"text": "é", "list": [1, 1.5, True, None, {"a": []}], "least": -(2**63), "most": 2**63 - 1},
        nested(MAX_PARAM_DEPTH),
        {"list": [0] * (MAX_PARAM_VALUES - 1)},
    ],
    ids=["empty", "all types", "deep", "long"],
)
def test_parameters_hold_what_json_has(params):
    config = SpecConfig(type="x", params=params)
    assert SpecConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({1: 2}, "valid string"),
        ({"a": {1: 2}}, "keys that are text"),
        ({"a": {b"b": 1}}, "values that JSON has, not bytes"),
        ({"a": [b"bytes"]}, "values that JSON has, not bytes"),
        ({"a": {1, 2}}, "values that JSON has, not set"),
        ({"a": float("nan")}, "only finite numbers"),
        ({"a": [float("inf")]}, "only finite numbers"),
        ({"a": 2**63}, "integers of 64 bits"),
        ({"a": "\ud800"}, "text that UTF-8 can encode"),
        ({"\ud800": 1}, "text that UTF-8 can encode"),
        (nested(MAX_PARAM_DEPTH + 1), "nested deeper than 16"),
        ({"list": [0] * MAX_PARAM_VALUES}, "at most 20000 values"),
        ({"lists": [[0] * 1000] * 1000}, "at most 20000 values"),
    ],
)
def test_parameters_hold_nothing_else(params, problem):
    with pytest.raises(ValidationError, match=problem):
        SpecConfig(type="x", params=params)


def test_addresses_are_parsed_and_counted():
    assert Wire(addresses=("", "/x", ADDRESS)).addresses == (ADDRESS,)
    assert len(Wire(addresses=(ADDRESS,) * 100).addresses) == MAX_ADDRESSES


def test_a_long_reason_is_cut():
    assert len(Wire(reason="x" * 1_000_000).reason) == 4096
