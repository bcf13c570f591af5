"""Kills, stops and disconnects the processes of a real network under load, and checks the jobs afterwards.

The exit status is 0 if every submitted job has ended, every result is correct, and nothing is left over.
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
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from engine import OwnEngine, engine_answers
from faults import FaultInjector
from figures import figures_of, passed, show
from leftovers import held_by_idle_nodes, left_after_the_end
from links import Links, open_links
from load import Jobs, Users
from nodes import Node

from bacalhau_p2p.client.client import Client

PROBE = Path(__file__).parents[3] / "tests" / "executors" / "wasm" / "probe.wasm"
COMPUTE_NODES_TIMEOUT = 120.0
"""Seconds for all compute nodes to start and to become known to the requester."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="duration of the faults (default: 5)")
    parser.add_argument("--jobs", type=int, help="jobs submitted in that time (default: 44 per minute)")
    parser.add_argument("--kills", type=int, help="minimum number of kill -9 (default: 11 per minute)")
    parser.add_argument("--compute-nodes", type=int, default=4, help="number of compute nodes (default: 4)")
    parser.add_argument("--seed", type=int, help="seed of the jobs and faults (default: random)")
    parser.add_argument(
        "--patience",
        type=float,
        default=240.0,
        help="seconds for jobs to end after all faults (default: 240)",
    )
    parser.add_argument("--no-docker", action="store_true", help="submit no Docker jobs")
    parser.add_argument(
        "--restart-engine", action="store_true", help="start a Docker engine, and restart it as a fault"
    )
    parser.add_argument(
        "--proxies", action="store_true", help="cut connections with proxies even if this user is root"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--keep", action="store_true", help="keep the folder with the nodes' logs and data")
    return parser.parse_args()


class Log:
    """Lines with the time since the start, on stderr."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def write(self, line: str) -> None:
        print(f"{time.monotonic() - self._started:7.1f} s  {line}", file=sys.stderr, flush=True)


async def run_until_signal(options: argparse.Namespace, seed: int, folder: Path) -> dict[str, Any] | None:
    """One run. SIGINT and SIGTERM end it early: then it cleans up, and there are no figures."""
    figures = None
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

        nursery.start_soon(watch)
        figures = await chaos(options, seed, folder, Log())
        nursery.cancel_scope.cancel()
    return figures


async def chaos(options: argparse.Namespace, seed: int, folder: Path, log: Log) -> dict[str, Any]:
    """One run. Returns its figures."""
    async with _engine(options) as (engine, has_docker), open_links(proxies=options.proxies) as links:
        engines = ("noop", "wasm", "docker") if has_docker else ("noop", "wasm")
        run = Run(options, seed, folder, log, links, engine, engines)
        return await run.carry_out()


@asynccontextmanager
async def _engine(options: argparse.Namespace) -> AsyncIterator[tuple[OwnEngine | None, bool]]:
    if not options.restart_engine:
        yield None, not options.no_docker and engine_answers()
        return
    engine = OwnEngine()
    try:
        await engine.start()
        engine.load_image()
        yield engine, True
    finally:
        engine.close()


class Run:
    """A network of nodes, its users, and the faults."""

    def __init__(
        self,
        options: argparse.Namespace,
        seed: int,
        folder: Path,
        log: Log,
        links: Links,
        engine: OwnEngine | None,
        engines: tuple[str, ...],
    ) -> None:
        self._options = options
        self._seed = seed
        self._folder = folder
        self._log = log
        self._links = links
        self._engine = engine
        self._engines = engines
        self._has_docker = "docker" in engines
        self._token = secrets.token_hex(16)
        self._nodes = self._network()

    async def carry_out(self) -> dict[str, Any]:
        """Returns the figures when all nodes have stopped."""
        kinds = ", ".join(self._engines)
        self._log.write(
            f"seed {self._seed}; a requester and {self._options.compute_nodes} compute nodes with {kinds}"
        )
        nodes, folder, engine = self._nodes, self._folder, self._engine
        try:
            async with Client(nodes[0].url, token=self._token) as client:
                figures = await self._with_nodes(client)
            figures |= await held_by_idle_nodes(nodes, folder, engine, self._has_docker)
        finally:
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as nursery:
                    for node in nodes:
                        nursery.start_soon(node.stop)
        figures["left over after the end"] = left_after_the_end(nodes, folder, engine, self._has_docker)
        return {"seed": self._seed, **figures}

    def _network(self) -> list[Node]:
        """A requester and compute nodes, in this order. None is started."""
        environment = {"DOCKER_HOST": self._engine.host} if self._engine is not None else {}
        flags = [flag for name in self._engines for flag in ("--engine", name)]
        nodes = []
        for number in range(self._options.compute_nodes + 1):
            self._links.add_node(number)
            part = ["--no-requester", *flags] if number else ["--no-compute"]
            nodes.append(Node(number, self._links, self._folder, self._token, part, environment))
        return nodes

    async def _with_nodes(self, client: Client) -> dict[str, Any]:
        """Start the nodes, submit jobs, inject faults, and fetch the results."""
        async with trio.open_nursery() as nursery:
            await self._start(client, nursery)
            jobs = Jobs(random.Random(self._seed), self._engines, await client.add(PROBE))
            users = Users(client, jobs)
            injector = FaultInjector(
                random.Random(self._seed + 1), self._nodes, self._links, users, self._engine, self._log.write
            )
            started = time.monotonic()
            await self._inject(users, injector, nursery)
            healed = time.monotonic()
            ended = f"{users.ended} of {len(users.submissions)} jobs have ended"
            self._log.write(f"all faults are healed; {ended}")
            await users.wait(self._options.patience)
            settled = time.monotonic()
            self._log.write("fetching the results")
            await users.fetch_all(self._folder / "fetched")
            known = {job.id for job in await client.jobs(limit=1000)}
            unproxied = self._links.unproxied_connections()
            self._log.write("checking for leftovers")
            nursery.cancel_scope.cancel()
        return {
            **figures_of(users, injector, known),
            "unproxied connections": unproxied,
            "seconds of faults": round(healed - started),
            "seconds to settle": round(settled - healed),
        }

    async def _start(self, client: Client, nursery: trio.Nursery) -> None:
        requester, *compute_nodes = self._nodes
        await requester.start()
        for node in compute_nodes:
            node.join(f"{requester.address}/p2p/{requester.peer_id}")
            nursery.start_soon(node.start)
        with trio.fail_after(COMPUTE_NODES_TIMEOUT):
            while sum(node.compute is not None for node in await client.nodes()) < len(compute_nodes):  # noqa: ASYNC110
                await trio.sleep(0.1)

    async def _inject(self, users: Users, injector: FaultInjector, nursery: trio.Nursery) -> None:
        """Submit jobs and inject faults. The nursery follows the jobs to their ends."""
        minutes = self._options.minutes
        jobs_a_minute = (self._options.jobs or 44 * minutes) / minutes
        kills = self._options.kills if self._options.kills is not None else round(11 * minutes)
        async with trio.open_nursery() as submitting:
            submitting.start_soon(users.submit, 60.0 / jobs_a_minute, nursery)
            await injector.run(minutes * 60, kills)
            submitting.cancel_scope.cancel()


def main() -> int:
    options = arguments()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    folder = Path(tempfile.mkdtemp(prefix="bacalhau-chaos-"))
    (folder / "fetched").mkdir()
    ok = False
    try:
        figures = trio.run(run_until_signal, options, seed, folder)
        if figures is None:
            return 130
        ok = passed(figures)
        print(json.dumps({**figures, "passed": ok}, indent=1)) if options.json else show(figures)
    finally:
        if ok and not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"The nodes' logs and data are in {folder}", file=sys.stderr)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
