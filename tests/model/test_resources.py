from __future__ import annotations

import pytest

from bacalhau_p2p.model.resources import Resources, ResourceSpec, parse_resources


def test_resources_are_added_and_subtracted_part_by_part():
    one = Resources(cpu=1.5, memory=10, disk=20, gpu=1)
    two = Resources(cpu=0.5, memory=1, disk=2, gpu=1)
    assert one + two == Resources(cpu=2.0, memory=11, disk=22, gpu=2)
    assert one - two == Resources(cpu=1.0, memory=9, disk=18, gpu=0)


@pytest.mark.parametrize("part", ["cpu", "memory", "disk", "gpu"])
def test_resources_fit_only_if_every_part_does(part):
    available = Resources(cpu=1, memory=1, disk=1, gpu=1)
    assert available.fits_in(available)
    assert not available.replace(**{part: 2}).fits_in(available)


def test_what_a_node_lacks_is_named_without_amounts():
    limit = Resources(cpu=1, memory=1, disk=1, gpu=0)
    assert Resources(cpu=1, memory=2, disk=2).too_large_for(limit) == (
        "is too small for the requested resources: memory, disk"
    )
    assert Resources(cpu=2, gpu=1).too_large_for(limit).endswith(": CPU, GPUs")


def test_rounding_errors_of_cores_do_not_matter():
    assert Resources(cpu=0.1 + 0.2).fits_in(Resources(cpu=0.3))


def test_a_spec_in_text_is_parsed_into_amounts():
    spec = ResourceSpec(cpu="500m", memory="1Gi", gpu="2")
    assert parse_resources(spec) == Resources(cpu=0.5, memory=2**30, disk=0, gpu=2)
