from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bacalhau_p2p.testing.purity import no_io


@pytest.mark.parametrize(
    "act",
    [
        lambda path: path.read_bytes(),
        lambda path: path.exists(),
        lambda path: path.resolve(),
        lambda path: list(path.iterdir()),
        lambda path: (path / "new").mkdir(),
        lambda path: os.open(path, os.O_RDONLY),
        lambda path: socket.socket(),
        lambda path: socket.create_connection(("localhost", 9)),
        lambda path: subprocess.run([sys.executable, "-c", ""], check=True),
    ],
)
def test_files_sockets_and_processes_are_forbidden_within_the_block(act, tmp_path):
    with no_io(), pytest.raises(AssertionError, match="must be pure"):
        act(tmp_path)


def test_everything_works_again_after_the_block(tmp_path):
    with pytest.raises(ValueError, match="of the block"), no_io():
        raise ValueError("of the block")
    (tmp_path / "a").write_text("a")
    assert Path(tmp_path / "a").read_text() == "a"
