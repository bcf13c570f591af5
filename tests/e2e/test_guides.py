"""The commands and programs of README.md and of all guides, run one after the other as each page has them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.doc_blocks import Block, blocks, comparable
from tests.support.networks.forked_commands import BIN
from tests.support.networks.networks import REPOSITORY, devstack

pytestmark = pytest.mark.network

ELSEWHERE = {
    "docs/adapters.md": "tests/docs/test_adapters.py runs its blocks, which are the files of a package",
    "docs/cli.md": "tests/docs/test_docs.py compares it with the commands",
}
PAGES = [
    page
    for page in (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")))
    if str(page.relative_to(REPOSITORY)) not in ELSEWHERE and any(block.is_run for block in blocks(page))
]


def run(page: list[Block], folder: Path, port: int) -> list[str]:
    """Run the steps of these blocks in one shell, and return what each printed."""
    for name in ("examples", "scripts", "docs"):
        (folder / name).symlink_to(REPOSITORY / name)
    steps = [
        step.replace("127.0.0.1:1234", f"127.0.0.1:{port}") for block in page for step, _ in block.script()
    ]
    script = "set -euo pipefail\n" + "\n".join(f"echo '+ step {n}'\n{step}" for n, step in enumerate(steps))
    done = subprocess.run(
        ["bash", "-c", script.replace("127.0.0.1:1234", f"127.0.0.1:{port}")],
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
            "BACALHAU_P2P_API_HOST": "127.0.0.1",
            "BACALHAU_P2P_API_PORT": str(port),
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return re.split(r"^\+ step \d+\n", done.stdout, flags=re.MULTILINE)[1:]


def prints_what_it_says(page: list[Block], printed: list[str]) -> None:
    said = [lines for block in page for _, lines in block.script()]
    for expected, text in zip(said, printed, strict=True):
        if expected:
            lines = [comparable(line) for line in text.splitlines() if line.strip()]
            assert lines == [comparable(line) for line in expected]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_the_page_works_and_prints_what_it_says(page: Path, tmp_path: Path):
    wanted = [block for block in blocks(page) if block.is_run and not block.needs_docker]
    if not wanted:
        pytest.skip("all of its blocks need Docker")
    with devstack("--compute-nodes", "3", "--engine", "wasm", folder=tmp_path) as (network, _):
        network.wait_for_compute_nodes(3)
        prints_what_it_says(wanted, run(wanted, tmp_path, network.port))


@pytest.mark.docker
@pytest.mark.usefixtures("docker_client")
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(block.needs_docker for block in blocks(page))],
    ids=lambda page: page.stem,
)
def test_every_block_for_docker_works(page: Path, tmp_path: Path):
    wanted = [block for block in blocks(page) if block.needs_docker]
    with devstack("--compute-nodes", "1", folder=tmp_path) as (network, _):
        network.wait_for_compute_nodes(1)
        prints_what_it_says(wanted, run(wanted, tmp_path, network.port))
