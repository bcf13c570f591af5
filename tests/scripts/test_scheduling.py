"""How the tests are shared out among processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONFTEST = """
from tests.support.scheduling import FilesThatShareScheduling

def pytest_xdist_make_scheduler(config, log):
    return FilesThatShareScheduling(config, log)
"""
SHARING = """
import pytest

@pytest.fixture(scope="module")
def number():
    with open("made", "a") as file:
        file.write("x")

@pytest.mark.parametrize("each", range(8))
def test_it(number, each):
    pass
"""


def test_a_fixture_of_a_module_is_made_once_and_not_in_each_process(tmp_path: Path):
    (tmp_path / "pytest.ini").touch()
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_sharing.py").write_text(SHARING)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "8 passed" in ran.stdout
    assert (tmp_path / "made").read_text() == "x"
