"""The machines decide on events and the time alone (`protocol`, `transitions`)."""

from __future__ import annotations

import ast
import os
import random
import socket
import sys
import time
import tomllib
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest

import bacalhau_p2p
from tests.simulation.plans.expand import expand
from tests.simulation.plans.inputs import with_inputs
from tests.simulation.worlds.world import World

PACKAGE = Path(bacalhau_p2p.__file__).parent
CLOCKS = ["time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep"]
DISK = ["open", "stat", "statvfs", "listdir", "scandir", "mkdir", "unlink", "rename", "getcwd"]
GLOBAL_RANDOMNESS = ["random", "randbytes", "getrandbits", "randrange", "choice", "shuffle", "uniform"]


class ReachedTheWorld(BaseException):
    """Not an Exception, so that no code under test can handle it."""


@contextmanager
def the_world_forbidden() -> Iterator[None]:
    """Clocks, disk, sockets and randomness raise, whoever asks for them."""

    def forbidden(name):
        def raises(*args, **kwargs):
            raise ReachedTheWorld(name)

        return raises

    with ExitStack() as stack:
        for module, names in (
            (time, CLOCKS),
            (os, [*DISK, "urandom"]),
            (random, GLOBAL_RANDOMNESS),
            (random.SystemRandom, ["random", "getrandbits"]),
            (socket, ["socket", "getaddrinfo", "create_connection"]),
            (uuid, ["uuid1", "uuid4"]),
            (sys.modules["builtins"], ["open"]),
        ):
            for name in names:
                stack.enter_context(patch.object(module, name, forbidden(f"{module.__name__}.{name}")))
        yield


@pytest.mark.parametrize("reach", [time.monotonic, os.getcwd, socket.socket, uuid.uuid4])
def test_the_world_is_out_of_reach(reach):
    name = reach.__name__
    module = sys.modules["os" if reach.__module__ in ("posix", "os") else reach.__module__]
    with the_world_forbidden(), pytest.raises(ReachedTheWorld):
        getattr(module, name)()


def test_whole_jobs_need_nothing_of_the_world():
    """Networks of both machines, in which jobs with and without inputs come to every end."""
    worlds = [World(expand(seed)) for seed in range(1, 11)]
    worlds += [World(with_inputs(expand(seed))) for seed in range(11, 16)]
    ends: Counter[str] = Counter()
    for world in worlds:
        with the_world_forbidden():
            outcome = world.run()
        assert outcome.violation is None
        ends += Counter(world.users.ends())
    assert ends.keys() >= {"Completed", "Failed", "Stopped"}


def test_the_import_contract_names_every_module_of_the_machines():
    contracts = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["tool"]["importlinter"]
    (pure,) = [c for c in contracts["contracts"] if c["name"] == "Machines and delivery are pure"]
    machines = {"bacalhau_p2p.requester.machine", "bacalhau_p2p.compute.machine"}
    assert _imported_in_their_rooms(machines) <= set(pure["source_modules"])


def _imported_in_their_rooms(modules: set[str]) -> set[str]:
    """These modules, and all modules of both components that they import, directly or not."""
    rooms = ("bacalhau_p2p.requester", "bacalhau_p2p.compute", "bacalhau_p2p.components")
    found: set[str] = set()
    pending = set(modules)
    while pending:
        module = pending.pop()
        found.add(module)
        tree = ast.parse((PACKAGE.parent / (module.replace(".", "/") + ".py")).read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(rooms):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                candidates = names if node.module in rooms else [node.module]
                pending |= set(candidates) - found
    return found
