"""The tree of tests mirrors that of the package, and its tests neither sleep nor import each other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "bacalhau_p2p"
TESTS = ROOT / "tests"

UNTESTED_ALONE = frozenset({"__init__", "__main__", "interface"})
"""Modules without behaviour of their own."""

MAY_SLEEP = {
    "compute/test_probes.py": "waits for a process of another program to end",
    "executors/docker/test_reattach.py": "waits for a file that the engine writes",
    "simulation": "its clock is simulated",
    "support/blocks/content_net.py": "its tests run on a clock that jumps",
    "support/peers/flooding_peer.py": "sends at a pace, in a process of its own",
    "support/networks/dht_net.py": "its tests run on a clock that jumps",
    "support/networks/gossip_net.py": "its tests run on a clock that jumps",
    "support/waiting.py": "the one place that polls other processes",
}
"""Files and folders that sleep without a clock that jumps, and why."""


def files() -> list[Path]:
    return sorted(TESTS.rglob("*.py"))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def named_modules() -> Iterator[str]:
    """The modules that docstrings of test modules name in backticks.

    A name is that of a module in the mirrored room or in one above it: in tests/ipfs/store, `pins`, `pins.py`
    and `store.pins` all name `ipfs.store.pins`.
    """
    for path in TESTS.rglob("test_*.py"):
        docstring = ast.get_docstring(tree(path)) or ""
        room = path.relative_to(TESTS).parent.parts
        for name in re.findall(r"`(?:bacalhau_p2p\.)?([\w.]+)`", docstring):
            for depth in range(len(room) + 1):
                yield ".".join([*room[:depth], name.removesuffix(".py")])


def test_every_module_has_a_test_module():
    named, missing = set(named_modules()), []
    for path in PACKAGE.rglob("*.py"):
        module = path.relative_to(PACKAGE).with_suffix("")
        if path.stem in UNTESTED_ALONE:
            continue
        mirrored = TESTS / module.parent / f"test_{module.name}.py"
        if not mirrored.exists() and ".".join(module.parts) not in named:
            missing.append(str(module))
    assert missing == []


def test_every_test_module_is_in_a_room_that_exists():
    rooms = {path.relative_to(TESTS).parts[0] for path in TESTS.rglob("test_*.py") if path.parent != TESTS}
    beside = {"docs", "e2e", "fuzz", "scripts", "simulation"}
    assert rooms - {path.name for path in PACKAGE.iterdir()} == beside


def test_no_file_imports_a_test_module():
    importing = {
        str(path.relative_to(TESTS)): name
        for path in files()
        for name in imports(path)
        if re.fullmatch(r"tests\.(?:.*\.)?test_\w+", name)
    }
    assert importing == {}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_only_listed_files_sleep_without_a_clock_that_jumps():
    sleeping = {
        str(path.relative_to(TESTS)) for path in files() if sleeps(path) and not has_jumping_clock(path)
    }
    assert [name for name in sorted(sleeping) if not name.startswith(tuple(MAY_SLEEP))] == []
    assert [start for start in MAY_SLEEP if not any(name.startswith(start) for name in sleeping)] == []


def sleeps(path: Path) -> bool:
    called = (node.func for node in ast.walk(tree(path)) if isinstance(node, ast.Call))
    return any("sleep" in (getattr(name, "attr", ""), getattr(name, "id", "")) for name in called)


def has_jumping_clock(path: Path) -> bool:
    return bool(re.search(r"autojump|MockClock", path.read_text()))
