from __future__ import annotations

from math import inf

import pytest
from pydantic import ValidationError

from bacalhau_p2p.model.usage import MAX_CPU_SECONDS, Usage


def test_what_was_not_measured_is_left_out():
    assert Usage(cpu_seconds=0.5, result_bytes=7).to_wire() == {"CPUSeconds": 0.5, "ResultBytes": 7}
    assert Usage().to_wire() == {}


def test_people_read_what_was_measured_bytes_in_and_out_among_it():
    used = Usage(
        cpu_seconds=2.34,
        peak_memory=61_000_000,
        input_bytes_fetched=2_000_000,
        input_bytes_local=1_000_000,
        result_bytes=7,
        network_bytes_received=2_000_000,
        network_bytes_sent=500,
    )
    assert str(used) == "2.3 s of CPU, 61 MB of memory, 5 MB in, 507 bytes out"
    assert str(Usage(cpu_seconds=0.007, peak_memory=0, result_bytes=0)) == "< 0.1 s of CPU, 0 bytes out"
    assert str(Usage()) == ""


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
