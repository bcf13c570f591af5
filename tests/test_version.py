from __future__ import annotations

import tomllib
from pathlib import Path

import bacalhau_p2p
from bacalhau_p2p.version import __version__


def test_the_version_is_that_of_the_distribution():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert __version__ == project["version"] == bacalhau_p2p.__version__
