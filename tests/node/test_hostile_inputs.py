"""Announcements of a stranger whose inputs are made to end, freeze or fill the nodes that look at them."""

from __future__ import annotations

import base64
import gzip
import io
import resource
import tarfile
import threading
import time
from functools import partial
from typing import Any

import pytest
import trio

from bacalhau_p2p.bprotocol.messages import JobAnnounced
from bacalhau_p2p.model.base import JobID
from bacalhau_p2p.model.job import InputSource, SpecConfig
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.runtime.watchdog import watching
from bacalhau_p2p.testing.network import open_network

NOOP = {"Tasks": [{"Engine": {"Type": "noop"}}]}
MEBIBYTE = 1024**2


def archive(plain: bytes) -> dict[str, Any]:
    url = "data:application/gzip;base64," + base64.b64encode(gzip.compress(plain, 9)).decode()
    return {"URL": url}


def with_header(**records: str) -> dict[str, Any]:
    """An archive of one file with these records in an extended header."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("f")
        info.size, info.pax_headers = 1, records
        tar.addfile(info, io.BytesIO(b"x"))
    return archive(buffer.getvalue())


def of_many_entries() -> dict[str, Any]:
    return archive(b"".join(tarfile.TarInfo(f"f{n}").tobuf(tarfile.USTAR_FORMAT) for n in range(27_000)))


HOSTILE = {
    "a sparse map that is no numbers": ("inline", with_header(**{"GNU.sparse.map": "x,y"})),
    "a hole of 800 MB": (
        "inline",
        with_header(**{"GNU.sparse.map": f"{800 * MEBIBYTE},0", "GNU.sparse.size": str(800 * MEBIBYTE)}),
    ),
    "a size of 23 digits": ("inline", with_header(size="9" * 23)),
    "27,000 entries": ("inline", of_many_entries()),
    "a name that is no name": ("url", {"URL": "http://xn--a/"}),
    "a name of unknown characters": ("url", {"URL": "http://xn--ls8h.la/x"}),
    "a URL of 200,000 characters": ("url", {"URL": "http://" + "a." * 100_000}),
    "the same for git": ("git", {"URL": "http://xn--a/"}),
    "a path of 100,000 parts": ("localdirectory", {"SourcePath": "/allowed/" + "y/" * 100_000}),
    "a path that nearly matches": ("local", {"SourcePath": "/allowed" + "/a" * 2000}),
}


def time_of_this_thread():
    """A clock of its processor time, for all threads: it stands while the machine is busy with others."""
    return partial(time.clock_gettime, time.pthread_getcpuclockid(threading.get_ident()))


@pytest.mark.parametrize("hostile", HOSTILE)
async def test_a_node_declines_at_once_and_goes_on(tmp_path, hostile):
    source, params = HOSTILE[hostile]
    spec = job_from_mapping(NOOP)
    wanted = InputSource(target="/in", source=SpecConfig(type=source, params=params))
    task = spec.task.replace(input_sources=(wanted,))
    allowed = ("/allowed/**/b/**/c/**/d",)
    async with open_network(tmp_path, compute_nodes=1, allow_local_paths=allowed) as network:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with watching(clock=time_of_this_thread()) as watchdog:
            for number in range(5):
                announced = JobAnnounced(
                    job_id=JobID(f"hostile-{number}"),
                    spec=spec.replace(tasks=(task,)),
                    bids_wanted=1,
                    round=1,
                    answers_wanted=True,
                    deadline=network.requester.clock() + 60,
                )
                network.requester.messenger.broadcast(announced)
            job = await network.requester.submit(NOOP)
            with trio.fail_after(30):
                assert (await job.wait_result()).exit_code == 0
        assert watchdog.stalls == 0, watchdog.longest
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * MEBIBYTE / 1024
        assert network.compute[0].info().compute.running_executions == 0
