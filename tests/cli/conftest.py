from __future__ import annotations

from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from bacalhau_p2p.cli.root import cli
from tests.support.servers.fake_node import FakeNode

Run = Callable[..., Result]


@pytest.fixture
def run(fake_node: FakeNode, tmp_path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command with the fake node, in an empty folder. A command must not end with an exception."""
    monkeypatch.setenv("BACALHAU_P2P_API_HOST", "127.0.0.1")
    monkeypatch.setenv("BACALHAU_P2P_API_PORT", str(fake_node.port))
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str, **options) -> Result:
        result = CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="bacalhau-p2p", **options)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        return result

    return invoke


@pytest.fixture
def results(tmp_path):
    """The results folder of a run."""
    folder = tmp_path / "of-the-node"
    (folder / "outputs").mkdir(parents=True)
    (folder / "stdout").write_bytes(b"hello\n")
    (folder / "stderr").write_bytes(b"")
    (folder / "exitCode").write_bytes(b"0")
    (folder / "outputs" / "data.bin").write_bytes(b"\0" * 600_000)
    return folder
