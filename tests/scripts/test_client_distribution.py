"""The light distribution: its wheel, in an environment that has nothing but what it asks for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from email import message_from_string
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.support.networks.networks import devstack

ROOT = Path(__file__).parents[2]
LIGHT = ROOT / "packaging" / "client"
HEAVY = {"libp2p", "docker", "wasmtime", "fastapi", "cryptography", "structlog", "jinja2", "cbor2", "nacl"}
OF_A_NODE = {"serve", "devstack", "config"}
"""Commands that need more than a client."""
NOT_OF_A_CLIENT = {*OF_A_NODE, "devstack_nodes", "node_process", "node_run", "guest"}
"""Modules of these commands, and what runs inside a job."""


def requirements(path: Path) -> dict[str, str]:
    project = tomllib.loads((path / "pyproject.toml").read_text())["project"]
    return {Requirement(line).name: str(Requirement(line).specifier) for line in project["dependencies"]}


def test_its_requirements_are_those_of_the_whole_distribution():
    whole, light = requirements(ROOT), requirements(LIGHT)
    assert light
    assert {name: whole.get(name) for name in light} == light
    assert HEAVY.isdisjoint(light)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    program = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps"]
    subprocess.run([*program, "--no-index", "--wheel-dir", folder, LIGHT], check=True)
    (found,) = folder.iterdir()
    return found


def needed(names: Iterator[str], seen: set[str]) -> Iterator[Distribution]:
    """The installed distributions with these names, and what they need."""
    for name in names:
        found = distribution(name)
        if found.metadata["Name"] in seen:
            continue
        seen.add(found.metadata["Name"])
        yield found
        wanted = [Requirement(line) for line in found.requires or ()]
        plain = [each for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
        yield from needed((each.name for each in plain), seen)


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command `bacalhau-p2p` of an environment with the wheel and nothing but its requirements.

    Their files are those of the environment that runs the tests, so that nothing is downloaded.
    """
    environment = tmp_path_factory.mktemp("light")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (packages,) = environment.glob("lib/python3*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    (metadata,) = packages.glob("*.dist-info")
    headers = message_from_string((metadata / "METADATA").read_text())
    names = (Requirement(line).name for line in headers.get_all("Requires-Dist", ()))
    for each in needed(names, set()):
        for top in {file.parts[0] for file in each.files or ()} - {"..", "__pycache__"}:
            link = packages / top
            if not link.exists():
                link.symlink_to(Path(str(each.locate_file(top))).resolve())
    command = environment / "bin" / "bacalhau-p2p"
    command.write_text(f"#!{environment}/bin/python\nfrom bacalhau_p2p.cli import main\nmain()\n")
    command.chmod(0o755)
    return command


def run(program: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [program, *words],
        env={**clean, **environment},
        cwd=program.parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_wheel_has_a_command_and_no_node(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    rooms = {name.split("/")[1] for name in names if name.startswith("bacalhau_p2p/") and name.count("/") > 1}
    assert rooms == {"cli", "client", "encoding", "functions", "ipfs", "model", "runtime"}
    assert any(name.endswith("entry_points.txt") for name in names)
    assert not [name for name in names if "__pycache__" in name]


def test_its_modules_need_nothing_else(program: Path):
    code = f"""if True:
        import pkgutil, sys
        from importlib import import_module
        import bacalhau_p2p.cli, bacalhau_p2p.client, bacalhau_p2p.functions
        for room in (bacalhau_p2p.cli, bacalhau_p2p.client, bacalhau_p2p.functions):
            for module in pkgutil.walk_packages(room.__path__, room.__name__ + "."):
                if set(module.name.split(".")).isdisjoint({sorted(NOT_OF_A_CLIENT)}):
                    import_module(module.name)
        print(*(name.split(".")[0] for name in sys.modules))
    """
    done = run(program.with_name("python"), "-c", code)
    assert done.returncode == 0, done.stderr
    assert HEAVY.isdisjoint(done.stdout.split())


def test_every_command_has_help_and_those_of_a_node_say_what_to_install(program: Path):
    assert re.fullmatch(r"bacalhau-p2p, version|bacalhau-p2p v[\d.]+\n", run(program, "--version").stdout)
    assert run(program, "version").stdout.startswith("bacalhau-p2p v")
    listed = run(program, "--help").stdout
    for name in re.findall(r"^  (\w+)  ", listed[listed.index("Commands") :], re.MULTILINE):
        done = run(program, name, "--help")
        if name in OF_A_NODE:
            assert done.returncode != 0
            assert f"{name} needs a node, and only the client is installed: pip install" in done.stderr
        else:
            assert (done.returncode, done.stderr) == (0, ""), name


@pytest.mark.network
def test_it_submits_a_job_and_fetches_its_result(program: Path, tmp_path: Path):
    shutil.copytree(ROOT / "examples" / "wordcount", tmp_path / "wordcount")
    count = [f"{tmp_path}/wordcount/texts:/inputs", f"{tmp_path}/wordcount/wordcount.wasm"]
    with devstack("--compute-nodes", "1", "--engine", "wasm", folder=tmp_path) as (network, _):
        network.wait_for_compute_nodes(1)
        node = {"BACALHAU_P2P_API_HOST": "127.0.0.1", "BACALHAU_P2P_API_PORT": str(network.port)}
        done = run(program, "wasm", "run", "--id-only", "--wait", "-i", *count, "--", "/inputs", **node)
        assert done.returncode == 0, done.stderr
        fetched = run(program, "get", done.stdout.strip(), "--output-dir", str(tmp_path / "out"), **node)
    assert fetched.returncode == 0, fetched.stderr
    assert "730487  total" in (tmp_path / "out" / "stdout").read_text()
