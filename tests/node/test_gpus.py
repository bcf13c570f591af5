from __future__ import annotations

import pytest

from bacalhau_p2p.node.gpus import find_gpus


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Makes the only program on the path, with this script."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def make(script: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    return make


def test_a_computer_without_nvidia_smi_has_none(nvidia_smi):
    assert find_gpus() == ()


def test_each_gpu_is_found_by_its_id(nvidia_smi):
    nvidia_smi('[ "$*" = "--query-gpu=uuid --format=csv,noheader" ] && echo GPU-1 && echo " GPU-2"')
    assert find_gpus() == ("GPU-1", "GPU-2")


@pytest.mark.parametrize("script", ["exit 9", "echo GPU-1; exit 1", r"printf '\377\377'"])
def test_a_driver_that_does_not_work_is_no_gpu(nvidia_smi, script):
    nvidia_smi(script)
    assert find_gpus() == ()
