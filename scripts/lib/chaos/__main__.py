"""Kills, stops and cuts off the processes of a real network under load, then counts what came of the jobs.

The exit status is 0 if every job that was submitted has ended, every result is what it must be, and
nothing was left over.
"""

from __future__ import annotations

import argparse
import json
import random
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from engine import OwnEngine, containers_of, engine_answers
from load import Jobs, Users
from nodes import Node, mounts_below, processes_of
from torment import Tormentor
from wires import Wires, open_wires

from bacalhau_p2p.client.client import Client
from bacalhau_p2p.model.state import JobState

PROBE = Path(__file__).parents[3] / "tests" / "executors" / "wasm" / "probe.wasm"
IDLE_WITHIN = 60.0
"""Seconds for nodes without jobs to give back what they reserved."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long faults go on (default 5)")
    parser.add_argument("--jobs", type=int, help="jobs submitted meanwhile (default 44 a minute)")
    parser.add_argument("--kills", type=int, help="kill -9 at least so often (default 11 a minute)")
    parser.add_argument("--compute-nodes", type=int, default=4)
    parser.add_argument("--seed", type=int, help="of the jobs and of the faults (default: any)")
    parser.add_argument(
        "--patience", type=float, default=240.0, help="seconds for jobs to end when all is healed"
    )
    parser.add_argument("--no-docker", action="store_true", help="no Docker jobs")
    parser.add_argument(
        "--restart-engine", action="store_true", help="start a Docker engine and restart it too"
    )
    parser.add_argument(
        "--proxies", action="store_true", help="cut connections in proxies, as for users who are not root"
    )
    parser.add_argument("--json", action="store_true", help="the figures as JSON")
    parser.add_argument("--keep", action="store_true", help="keep the folder with the nodes' logs")
    return parser.parse_args()


class Story:
    """What happened when, on stderr."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def tell(self, line: str) -> None:
        print(f"{time.monotonic() - self._begun:7.1f} s  {line}", file=sys.stderr, flush=True)


async def until_told(asked: argparse.Namespace, seed: int, folder: Path) -> dict[str, Any] | None:
    """One run, which SIGINT and SIGTERM end early: then nothing is left, and there are no figures."""
    figures = None
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

        nursery.start_soon(watch)
        figures = await chaos(asked, seed, folder, Story())
        nursery.cancel_scope.cancel()
    return figures


async def chaos(asked: argparse.Namespace, seed: int, folder: Path, story: Story) -> dict[str, Any]:
    """One run; returns its figures."""
    async with _engine(asked) as (engine, has_docker), open_wires(proxies=asked.proxies) as wires:
        engines = ("noop", "wasm", "docker") if has_docker else ("noop", "wasm")
        return await _run(asked, seed, folder, story, wires, engine, engines)


@asynccontextmanager
async def _engine(asked: argparse.Namespace) -> AsyncIterator[tuple[OwnEngine | None, bool]]:
    if not asked.restart_engine:
        yield None, not asked.no_docker and engine_answers()
        return
    engine = OwnEngine()
    try:
        await engine.start()
        engine.bring_image()
        yield engine, True
    finally:
        engine.close()


async def _run(
    asked: argparse.Namespace,
    seed: int,
    folder: Path,
    story: Story,
    wires: Wires,
    engine: OwnEngine | None,
    engines: tuple[str, ...],
) -> dict[str, Any]:
    token = secrets.token_hex(16)
    nodes = _network(asked, folder, wires, engine, engines, token)
    kinds = ", ".join(engines)
    story.tell(f"seed {seed}; a requester and {asked.compute_nodes} compute nodes with {kinds}")
    jobs_a_minute = (asked.jobs or 44 * asked.minutes) / asked.minutes
    kills = asked.kills if asked.kills is not None else round(11 * asked.minutes)
    try:
        async with trio.open_nursery() as nursery, Client(nodes[0].url, token=token) as client:
            await nodes[0].start()
            address = f"{nodes[0].dialled}/p2p/{nodes[0].peer_id}"
            for node in nodes[1:]:
                node.join(address)
                nursery.start_soon(node.start)
            await _members(client, asked.compute_nodes)
            users = Users(client, Jobs(random.Random(seed), engines, await client.add(PROBE)))
            tormentor = Tormentor(random.Random(seed + 1), nodes, wires, users, engine, story.tell)
            begun = time.monotonic()
            async with trio.open_nursery() as submitting:
                submitting.start_soon(users.submit, 60.0 / jobs_a_minute, nursery)
                await tormentor.run(asked.minutes * 60, kills)
                submitting.cancel_scope.cancel()
            tormented = time.monotonic() - begun
            story.tell(f"all is healed; {users.ended} of {len(users.submissions)} jobs have ended")
            await users.wait(asked.patience)
            settled = time.monotonic() - begun - tormented
            story.tell("fetching the results")
            await users.fetch_all(folder / "fetched")
            known = await client.jobs(limit=1000)
            past = wires.past_the_wires()
            story.tell("looking for what is left over")
            nursery.cancel_scope.cancel()
        figures = _figures(users, tormentor, {job.id for job in known})
        figures["past the wires"] = past
        figures |= {"seconds of faults": round(tormented), "seconds to settle": round(settled)}
        figures |= await _left_over(nodes, folder, engine, "docker" in engines)
    finally:
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                for node in nodes:
                    nursery.start_soon(node.stop)
    figures["left over after the end"] = [
        *processes_of(folder),
        *mounts_below(folder),
        *(_containers(nodes, engine) if "docker" in engines else ()),
    ]
    return {"seed": seed, **figures}


def _network(
    asked: argparse.Namespace,
    folder: Path,
    wires: Wires,
    engine: OwnEngine | None,
    engines: tuple[str, ...],
    token: str,
) -> list[Node]:
    """A requester, and compute nodes after it; none is started."""
    environment = {"DOCKER_HOST": engine.host} if engine is not None else {}
    flags = [flag for name in engines for flag in ("--engine", name)]
    nodes = []
    for number in range(asked.compute_nodes + 1):
        wires.plug(number)
        part = ["--no-requester", *flags] if number else ["--no-compute"]
        nodes.append(Node(number, wires, folder, token, part, environment))
    return nodes


async def _members(client: Client, compute_nodes: int) -> None:
    with trio.fail_after(120):
        while sum(node.compute is not None for node in await client.nodes()) < compute_nodes:  # noqa: ASYNC110
            await trio.sleep(0.1)


def _figures(users: Users, tormentor: Tormentor, known: set[str]) -> dict[str, Any]:
    submissions = users.submissions
    ended = [s for s in submissions if s.job is not None]
    states = Counter(str(s.job.state) for s in ended if s.job is not None)
    answered = {s.job_id for s in submissions if s.job_id}
    return {
        "submitted": len(submissions),
        "by engine": dict(Counter(s.kind for s in submissions)),
        "answered": sum(bool(s.job_id) for s in submissions),
        "submits repeated": sum(s.repeats for s in submissions),
        "terminal": len(ended),
        "states": dict(states),
        "reasons": [f"{s.token}: {s.job.message}" for s in ended if s.job and s.job.state is JobState.FAILED],
        "executions": sum(s.executions for s in submissions),
        "results fetched": sum(s.fetched for s in submissions),
        "results correct": sum(s.fetched and not s.fault for s in submissions),
        "wrong results": [f"{s.token}: {s.fault}" for s in submissions if s.fault],
        "lost": [f"{s.token}: {s.lost}" for s in submissions if s.lost] + sorted(answered - known),
        "submitted twice": sorted(known - answered),
        "hung": [f"{s.token} {s.job_id}" for s in submissions if s.job is None and not s.lost],
        "kills": tormentor.kills,
        "killed": dict(sorted(tormentor.killed.items())),
        "faults": dict(sorted(tormentor.faults.items())),
    }


async def _left_over(
    nodes: list[Node], folder: Path, engine: OwnEngine | None, has_docker: bool
) -> dict[str, Any]:
    """What idle nodes still hold; they get a while to give it back."""
    found: dict[str, Any] = {}
    with trio.move_on_after(IDLE_WITHIN):
        while True:
            found = {
                "left-over containers": _containers(nodes, engine) if has_docker else [],
                "left-over folders": _folders(folder),
                "left-over mounts": mounts_below(folder),
                "reservations": await _reservations(nodes[1:]),
            }
            if not any(found.values()):
                break
            await trio.sleep(0.5)
    return found


def _folders(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.glob("compute-*/executions/*")]


async def _reservations(nodes: list[Node]) -> list[str]:
    held = []
    for node in nodes:
        info = await node.info()
        compute = info["Compute"] if info else {}
        if compute.get("AvailableCapacity") != compute.get("MaxCapacity") or compute.get("RunningExecutions"):
            held.append(f"{node.name}: {json.dumps(compute)}")
        elif not info:
            held.append(f"{node.name} does not answer")
    return held


def _containers(nodes: list[Node], engine: OwnEngine | None) -> list[str]:
    return containers_of(engine.host if engine else None, {node.peer_id for node in nodes})


FAULTS = (
    "wrong results",
    "lost",
    "submitted twice",
    "hung",
    "left-over containers",
    "left-over folders",
    "left-over mounts",
    "reservations",
    "past the wires",
    "left over after the end",
)
"""What must be empty."""


def passed(figures: dict[str, Any]) -> bool:
    """Whether no job was lost, hung or wrong, and nothing was left over."""
    everything = figures["submitted"] == figures["answered"] == figures["terminal"]
    return everything and not any(figures[name] for name in FAULTS)


def show(figures: dict[str, Any]) -> None:
    for name, value in figures.items():
        if isinstance(value, list):
            print(f"{name:<24} {len(value)}")
            for line in value:
                print(f"    {line}")
        elif isinstance(value, dict):
            print(f"{name:<24} " + ", ".join(f"{key} {count}" for key, count in value.items()))
        else:
            print(f"{name:<24} {value}")


def main() -> int:
    asked = arguments()
    seed = asked.seed if asked.seed is not None else random.SystemRandom().randrange(10**6)
    folder = Path(tempfile.mkdtemp(prefix="bacalhau-chaos-"))
    (folder / "fetched").mkdir()
    ok = False
    try:
        figures = trio.run(until_told, asked, seed, folder)
        if figures is None:
            return 130
        ok = passed(figures)
        print(json.dumps({**figures, "passed": ok}, indent=1)) if asked.json else show(figures)
    finally:
        if ok and not asked.keep:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"The nodes' logs and data are in {folder}", file=sys.stderr)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
