"""The package that docs/adapters.md builds passes its own tests, and a network runs a job with it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = re.compile(r"^```(?:python|toml)\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the page, and the metadata that an installation would leave."""
    folder = tmp_path_factory.mktemp("package")
    for name, text in FILES.findall((ROOT / "docs" / "adapters.md").read_text()):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    metadata = folder / f"{project['name']}-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    points = [f"[{group}]\n" + "".join(f"{n} = {v}\n" for n, v in each.items()) for group, each in groups]
    (metadata / "entry_points.txt").write_text("\n".join(points))
    return folder


def python(package: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=package,
        env={**os.environ, "PYTHONPATH": f"{package}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def printed(package: Path) -> str:
    """What pytest prints of the tests of the package."""
    return python(package, "-m", "pytest", "-v", "-p", "no:cacheprovider", "tests")


@pytest.mark.parametrize("kind", ["executor", "storage", "publisher", "verifier"])
def test_the_adapter_passes_its_suite(printed: str, kind: str):
    assert len(re.findall(rf"^tests/test_{kind}\.py::\S+.* PASSED", printed, re.MULTILINE)) > 5


@pytest.mark.network
def test_a_network_runs_a_job_with_all_of_them(package: Path):
    assert python(package, "count.py") == "True ['1', '2', '3']\n" * 2
