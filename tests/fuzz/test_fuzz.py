"""A short form of `scripts/fuzz`, with a fresh seed (`tests.fuzz`)."""

from __future__ import annotations

import pytest

from tests.fuzz.campaign import run_part
from tests.fuzz.mutation import mutated, mutated_bytes
from tests.fuzz.parts import PARTS
from tests.support.fresh_seeds import fresh_seed

INPUTS = {"requester": 150, "compute": 150}


@pytest.mark.parametrize("part", PARTS)
def test_no_input_raises_or_stalls(part):
    seed = fresh_seed("fuzz")
    report = run_part(part, PARTS[part], seed=seed, first=0, inputs=INPUTS.get(part, 2000))
    assert report.clean, (
        f"scripts/fuzz {part} --seed {seed} --only N: {report.deaths}, stalls {report.stalls}"
    )
    assert 0 < report.accepted < report.inputs  # both ways of reading are tried


def test_a_fault_and_its_input_are_reported():
    class Broken:
        def run(self, rng):
            if rng.random() < 0.5:
                raise KeyError("x")
            return True

        def close(self):
            pass

    report = run_part("broken", Broken, seed=1, first=0, inputs=20)
    assert not report.clean
    assert report.inputs == 20
    assert len(report.deaths) == 1
    assert all("KeyError" in fault for fault in report.deaths)


def test_mutations_leave_the_original_alone_and_are_repeatable():
    from random import Random

    value = {"a": [1, {"b": "c"}]}
    changed = [mutated(value, Random(seed), 2) for seed in range(50)]
    assert value == {"a": [1, {"b": "c"}]}
    assert repr(changed) == repr([mutated(value, Random(seed), 2) for seed in range(50)])
    assert len({mutated_bytes(b"some bytes", Random(seed), 2) for seed in range(50)}) > 30
