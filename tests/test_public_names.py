"""Everything that users need is in `bacalhau_p2p`, and is imported only when it is used."""

from __future__ import annotations

import inspect
import subprocess
import sys

import bacalhau_p2p
from bacalhau_p2p import errors

BLOCKED = ("libp2p", "docker", "wasmtime", "fastapi", "hypercorn", "zeroconf", "multiaddr", "nacl", "jinja2")


def run(program: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    ).stdout


def test_every_public_name_can_be_imported():
    assert [name for name in bacalhau_p2p.__all__ if not hasattr(bacalhau_p2p, name)] == []
    assert set(bacalhau_p2p.__all__) <= set(dir(bacalhau_p2p))


def test_every_error_is_public():
    found = {name for name, value in vars(errors).items() if inspect.isclass(value) and _is_ours(value)}
    assert found - set(bacalhau_p2p.__all__) == set()


def _is_ours(value: type) -> bool:
    return value.__module__ == errors.__name__


def test_the_package_imports_nothing_but_itself():
    program = """
        import sys
        before = set(sys.modules)
        import bacalhau_p2p
        print(*sorted(set(sys.modules) - before))
    """
    imported = run(inspect.cleandoc(program)).split()
    ours = [name for name in imported if name.startswith("bacalhau_p2p")]
    assert ours == ["bacalhau_p2p", "bacalhau_p2p.version"]
    assert {"asyncio", "anyio", "trio", "httpx", "pydantic"} & set(imported) == set()


def test_the_client_needs_neither_libp2p_nor_an_engine_nor_a_server():
    program = f"""
        import sys
        for name in {BLOCKED!r}:
            sys.modules[name] = None
        import bacalhau_p2p
        for name in bacalhau_p2p.__all__:
            if name not in ("Node", "open_node"):
                getattr(bacalhau_p2p, name)
        import bacalhau_p2p.cli.root
    """
    run(inspect.cleandoc(program))


def test_a_name_that_does_not_exist_is_an_error():
    assert not hasattr(bacalhau_p2p, "Clint")
