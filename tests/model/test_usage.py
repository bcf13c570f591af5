from __future__ import annotations

from math import inf

import pytest
from pydantic import ValidationError

from bacalhau_p2p.model.usage import MAX_CPU_SECONDS, Usage


def test_what_was_not_measured_is_left_out():
    assert Usage(cpu_seconds=0.5, result_bytes=7).to_wire() == {"CPUSeconds": 0.5, "ResultBytes": 7}
    assert Usage().to_wire() == {}


def test_what_a_later_version_measures_is_ignored():
    assert Usage.from_wire({"PeakMemory": 1, "GPUSeconds": 3}) == Usage(peak_memory=1)


@pytest.mark.parametrize(
    "value",
    [
        {"CPUSeconds": -0.1},
        {"CPUSeconds": inf},
        {"CPUSeconds": 2 * MAX_CPU_SECONDS},
        {"PeakMemory": -1},
        {"ResultBytes": 2**60 + 1},
        {"InputBytesFetched": "many"},
    ],
)
def test_impossible_values_are_refused(value):
    with pytest.raises(ValidationError):
        Usage.from_wire(value)
