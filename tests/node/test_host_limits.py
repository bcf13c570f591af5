from __future__ import annotations

import os
import shutil
from collections import namedtuple

import pytest

from bacalhau_p2p.node.host_limits import content_quota, disk_shortage, job_capacity
from bacalhau_p2p.settings import Limits, Settings

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def disk(monkeypatch):
    """A disk of 1000 bytes, of which 400 are free."""
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(1000, 600, 400))


def test_jobs_get_what_the_limits_give(tmp_path):
    given = job_capacity(Limits(cpu="500m", memory="1gb", disk="2gb", gpu="1"), tmp_path)
    assert (given.cpu, given.memory, given.disk, given.gpu) == (0.5, 10**9, 2 * 10**9, 1)


def test_without_limits_jobs_get_most_of_the_computer_and_no_gpu(tmp_path):
    given = job_capacity(Limits(), tmp_path)
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert (given.cpu, given.disk, given.gpu) == (os.cpu_count(), 320, 0)
    assert given.memory == int(0.8 * total)


def test_without_a_limit_jobs_get_the_gpus_that_were_found(tmp_path):
    assert job_capacity(Limits(), tmp_path, 2).gpu == 2
    assert job_capacity(Limits(gpu="0"), tmp_path, 2).gpu == 0


def test_the_content_quota_is_most_of_the_disk_unless_it_is_set(tmp_path):
    assert content_quota(Settings(data_dir=tmp_path)) == 800
    assert content_quota(Settings(data_dir=tmp_path, content_quota="1kb")) == 1000


@pytest.mark.parametrize(
    ("min_free", "inputs", "shortage"),
    [(100, 300, None), (400, 0, None), (401, 0, "almost no free disk"), (100, 301, "301 bytes")],
)
def test_a_job_needs_disk_for_its_inputs_beside_what_must_stay_free(tmp_path, min_free, inputs, shortage):
    found = disk_shortage(tmp_path, min_free)(inputs)
    assert found is None if shortage is None else shortage in found
