"""Runs a node in this process until it is told to stop."""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Callable

import trio

from bacalhau_p2p.api.server import serve_api
from bacalhau_p2p.cli.printing import print_line
from bacalhau_p2p.errors import BacalhauError
from bacalhau_p2p.model.node import NodeInfo
from bacalhau_p2p.node import Node, open_node
from bacalhau_p2p.runtime.descriptors import raise_limit
from bacalhau_p2p.runtime.removal import discard_tree
from bacalhau_p2p.runtime.watchdog import watching
from bacalhau_p2p.settings import Settings

Ready = Callable[[Node, str], None]
"""Called with the node and the URL of its API when the node listens."""


def run_node(
    settings: Settings, ready: Ready, *, lifeline: int | None = None, ephemeral: bool = False
) -> None:
    """Run a node until SIGINT or SIGTERM, or until the other end of the pipe `lifeline` is closed.

    An `ephemeral` node removes its data directory at the end. Raises BacalhauError.
    """
    raise_limit()
    # Everything loaded by now stays, and a node makes few cycles: collect them a tenth as often.
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
    try:
        trio.run(_serve, settings, ready, lifeline)
    except BaseExceptionGroup as group:
        raise _root_cause(group) from group
    finally:
        if ephemeral:
            discard_tree(settings.data_dir)


async def _serve(settings: Settings, ready: Ready, lifeline: int | None) -> None:
    shutdown = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch_signals, shutdown, nursery.cancel_scope)
        if lifeline is not None:
            nursery.start_soon(_cancel_on_eof, lifeline, nursery.cancel_scope)
        async with open_node(settings) as node, serve_api(node) as url:
            with watching(counters=node.messenger.counters, on_slow_pass=node.report_slow_pass):
                ready(node, url)
                await shutdown.wait()
                say_what_goes_on(node.info(), settings.drain)
                await node.drain(settings.drain)
        nursery.cancel_scope.cancel()


async def _watch_signals(shutdown: trio.Event, scope: trio.CancelScope) -> None:
    """The first signal starts a graceful shutdown, the second cancels the node. Both clean up."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async for _ in signals:
            if shutdown.is_set():
                scope.cancel()
            shutdown.set()


async def _cancel_on_eof(lifeline: int, scope: trio.CancelScope) -> None:
    async with trio.lowlevel.FdStream(lifeline) as pipe:
        while await pipe.receive_some(1024):
            pass
    scope.cancel()


def say_what_goes_on(info: NodeInfo, patience: float) -> None:
    """Tell an operator why a node does not stop at once, if it runs something."""
    running = info.compute.running_executions if info.compute is not None else 0
    if running and patience:
        jobs = "1 execution" if running == 1 else f"{running} executions"
        print_line(
            f"Stopping: {jobs} may go on for up to {patience:g} s; a second Ctrl-C stops at once", err=True
        )


def print_addresses(node: Node, url: str) -> None:
    print_line(f"Peer ID: {node.peer_id}")
    for address in node.addresses:
        print_line(f"Swarm:   {address}")
    print_line(f"API:     {url}")
    sys.stdout.flush()
    for problem in node.health():
        print_line(f"Warning: {problem}", err=True)


def _root_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of ours, which a user can act on; the whole group if it has any other error."""
    ours, rest = group.split(BacalhauError)
    if ours is None or rest is not None:
        return group
    error: BaseException = ours
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
