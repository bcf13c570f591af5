"""A user's program that uses all of the public API passes mypy --strict."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import bacalhau_p2p
from bacalhau_p2p import AnyNode, JobHandle, Result, SyncClient, SyncJobHandle, SyncResult

ROOT = Path(__file__).parents[1]
PROGRAM = ROOT / "tests" / "support" / "programs" / "typed_program.py"


def test_the_program_uses_every_public_name_and_every_method():
    tree = ast.parse(PROGRAM.read_text())
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert sorted(set(bacalhau_p2p.__all__) - used) == []
    called = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    methods = {
        name
        for kind in (AnyNode, JobHandle, Result, SyncClient, SyncJobHandle, SyncResult)
        for name, member in inspect.getmembers(kind)
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property))
    }
    assert sorted(methods - called) == []


def test_mypy_finds_nothing_to_say_about_the_program():
    """With the cache of the checks, so that it takes seconds."""
    pytest.importorskip("mypy")
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", PROGRAM.relative_to(ROOT)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert (checked.stdout, checked.returncode) == ("Success: no issues found in 1 source file\n", 0)
