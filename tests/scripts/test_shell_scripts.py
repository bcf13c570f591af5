from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import docker
import pytest

ROOT = Path(__file__).parents[2]

SCRIPTS = sorted(
    path
    for folder in (ROOT / "scripts", ROOT / "scripts" / "lib", ROOT / ".ci")
    for path in folder.iterdir()
    if path.is_file() and (path.suffix == ".sh" or path.read_bytes().startswith(b"#!/usr/bin/env bash"))
)

LIBRARIES = ("packages", "venv", "engine", "memory")


def run(*command: str | Path, path: str | None = None, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **({"PATH": path} if path else {})}
    return subprocess.run(
        command, cwd=cwd, env=environment, text=True, capture_output=True, check=False, timeout=60
    )


def source(script: str, *, path: str | None = None, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run bash commands after sourcing the libraries, as the scripts do."""
    libraries = "".join(f'source "{ROOT}/scripts/lib/{name}.sh"\n' for name in LIBRARIES)
    return run("/bin/bash", "-c", f"set -euo pipefail\n{libraries}{script}", path=path, cwd=cwd)


@pytest.fixture
def poor_path(tmp_path: Path) -> str:
    """A PATH that contains only apt-get, and an `id` of a user other than root."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, body in (("id", "echo 1000"), ("apt-get", "exit 99")):
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    return str(folder)


def test_the_scripts_are_found() -> None:
    assert {path.name for path in SCRIPTS} >= {"setup", "test", "check", "run", "venv.sh", "keep_engine.sh"}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_has_no_syntax_errors(script: Path) -> None:
    result = run("bash", "-n", script)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("script", ["setup", "test", "check"])
def test_a_command_is_executable(script: str) -> None:
    assert os.access(ROOT / "scripts" / script, os.X_OK)


def test_setup_has_a_help_text_and_rejects_unknown_options() -> None:
    explained = run(ROOT / "scripts" / "setup", "--help")
    assert explained.returncode == 0
    assert "scripts/setup [--test] [--check]" in explained.stdout
    refused = run(ROOT / "scripts" / "setup", "--tset")
    assert (refused.returncode, refused.stdout) == (2, explained.stdout)


def test_missing_packages_that_cannot_be_installed_are_named_in_one_message(poor_path: str) -> None:
    result = source("install_packages 'Compiling' gcc libgmp-dev", path=poor_path)
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "Compiling needs these packages (Debian names): gcc libgmp-dev",
        "Install them:  sudo apt-get install gcc libgmp-dev",
    ]


def test_a_missing_python_is_named_with_its_packages(poor_path: str) -> None:
    result = source("find_python", path=poor_path)
    assert result.returncode == 1
    assert "python3 python3-venv" in result.stderr
    assert result.stdout == ""


def test_a_python_that_is_too_old_is_skipped(poor_path: str) -> None:
    old = Path(poor_path, "python3")
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    good = Path(poor_path, "python3.12")
    good.symlink_to(Path(sys.executable).resolve())
    result = source("find_python", path=poor_path)
    assert (result.returncode, result.stdout) == (0, "python3.12"), result.stderr


def test_an_engine_that_cannot_be_started_is_reported(poor_path: str) -> None:
    result = source("engine_answers() { false; }; ensure_engine", path=poor_path)
    assert result.returncode == 1
    assert result.stderr == "No Docker engine is running, and none is installed (Debian: docker.io).\n"


def test_a_folder_in_memory_is_removed_again() -> None:
    made = source("""
        make_memory_folder || memory_folder=$(mktemp -d) # where there is no room
        touch "$memory_folder/file"
        echo "$memory_folder"
        remove_memory_folder
    """)
    assert made.returncode == 0, made.stderr
    assert not Path(made.stdout.strip()).exists()


def test_where_memory_is_scarce_no_folder_is_made_in_it() -> None:
    scarce = source('awk() { echo 1000000; }; make_memory_folder || echo "none:$memory_folder"')
    assert (scarce.returncode, scarce.stdout) == (0, "none:\n"), scarce.stderr


@pytest.mark.docker
@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("dockerd") is None or not (ROOT / ".venv").exists(),
    reason="needs root, dockerd and .venv",
)
def test_the_engine_of_a_killed_script_is_stopped() -> None:
    script = f"""
        source {ROOT}/scripts/lib/engine.sh
        start_engine
        printf '%s %s\\n' "$engine_folder" "$engine_keeper"
        read -r
    """
    with subprocess.Popen(
        ["bash", "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        folder, keeper = process.stdout.readline().split()
        ended = os.pidfd_open(int(keeper))
        assert processes_of(folder) != []
        with closing(docker.DockerClient(f"unix://{folder}/docker.sock")) as client:
            assert client.ping()
        process.kill()
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    assert poll.poll(30_000) != [], "the engine's keeper did not end"
    os.close(ended)
    assert not Path(folder).exists()
    assert processes_of(folder) == []
    assert folder not in Path("/proc/mounts").read_text()


def processes_of(folder: str) -> list[bytes]:
    commands = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            commands.append((process / "cmdline").read_bytes())
    return [command for command in commands if folder.encode() in command]
