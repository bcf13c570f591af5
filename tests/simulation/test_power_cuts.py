"""Nodes whose machines lose power: what was told is kept, and a store that is careless is noticed."""

from __future__ import annotations

from bacalhau_p2p.compute import service as compute_service
from bacalhau_p2p.requester import service as requester_service
from bacalhau_p2p.testing.simulation import node as simulated


def test_a_component_hears_what_its_machine_is_told_in_simulation():
    assert {kind.kind for kind in compute_service._HEARD} == simulated._TO_COMPUTE
    assert {kind.kind for kind in requester_service._HEARD} == simulated._TO_REQUESTER
