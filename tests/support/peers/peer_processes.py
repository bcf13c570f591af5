"""Peers in processes of their own, controlled over a socket with one JSON object per line.

A fork server with libp2p loaded starts each in about 50 ms instead of 1.2 s.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.testing.transports import ECHO, HOLD, echo, hold
from bacalhau_p2p.transports.interface import Broadcast, DirectFrame, PeerConnected
from tests.support.fork_server import context

PATIENCE = 20.0
FAILING = "/bacalhau/conformance/fails/1.0.0"
"""A protocol whose handler raises."""


class Lines:
    """JSON objects over a stream socket."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = b""
        self._lock = trio.Lock()

    async def write(self, message: dict[str, Any]) -> None:
        async with self._lock:
            await self._stream.send_all(json.dumps(message).encode() + b"\n")

    async def read(self) -> dict[str, Any] | None:
        while b"\n" not in self._buffer:
            chunk = await self._stream.receive_some()
            if not chunk:
                return None
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)


# --- in the child ---------------------------------------------------------------------------------


def run_child(sock: socket.socket, main: Callable[..., Any], config: dict[str, Any]) -> None:
    """Run `main(lines, config)` until it ends."""

    if main.__module__ == "tests.support.peers.hostile_peers":
        logging.disable(logging.CRITICAL)  # what they do should fail

    async def run() -> None:
        await main(Lines(trio.SocketStream(trio.socket.from_stdlib_socket(sock))), config)

    try:
        trio.run(run)
    except BaseException:  # noqa: BLE001 - printed; the parent gets the exit status
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


async def node(lines: Lines, config: dict[str, Any]) -> None:
    """Our transport. `without` names a guard to remove, which shows that it is needed."""
    from bacalhau_p2p.transports.libp2p.transport import open_libp2p
    from tests.support.peers.guards_removed import prepare, remove

    without = config.pop("without", None)
    seed = config.pop("seed", None)
    topics = config.pop("topics", ["t"])
    identity = Identity.generate(bytes.fromhex(seed) if seed else None)
    prepare(without)
    async with open_libp2p(identity, **config) as transport:
        remove(without, transport)
        count_heartbeats(transport)
        transport.handle_streams(ECHO, echo)
        transport.handle_streams(HOLD, hold)
        transport._host.set_stream_handler(FAILING, fail)
        for topic in topics:
            await transport.subscribe(topic)
        await lines.write({"event": "ready", "peer": transport.peer_id, "addresses": transport.addresses})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_report, lines, transport)
            while (command := await lines.read()) is not None:
                nursery.start_soon(_execute, lines, transport, command)
            nursery.cancel_scope.cancel()


async def _report(lines: Lines, transport: Any) -> None:
    async for item in transport.incoming:
        event: dict[str, Any] = {"event": type(item).__name__}
        if isinstance(item, Broadcast | DirectFrame):
            event |= {"peer": item.author, "payload": item.payload.decode("latin-1")}
        else:
            event |= {"peer": item.peer}
            if isinstance(item, PeerConnected):
                event["peers"] = sorted(transport.peers)
        await lines.write(event)


async def _execute(lines: Lines, transport: Any, command: dict[str, Any]) -> None:
    from libp2p.peer.id import ID
    from multiaddr import Multiaddr

    from bacalhau_p2p.errors import BacalhauError

    answer: Any = None
    fault = None
    try:
        match command["do"]:
            case "broadcast":
                for payload in command["payloads"]:
                    await transport.broadcast(command.get("topic", "t"), payload.encode())
            case "send":
                await transport.send(command["peer"], command["payload"].encode())
            case "fill":
                while transport.send_now(command["peer"], bytes(command["size"])):
                    await trio.lowlevel.checkpoint()
            case "connect":
                answer = await transport.connect(command["address"])
            case "learn":
                transport.learn_addresses(command["peer"], command["addresses"])
            case "disconnect":
                await transport.disconnect(command["peer"])
            case "ban":
                await transport.ban(command["peer"])
            case "inspect":
                answer = inspect(transport)
            case "dial_raw":
                whole = Multiaddr(command["address"])
                await transport._swarm.dial_addr(whole, ID.from_base58(whole.value_for_protocol("p2p")))
                answer = inspect(transport)
    except BacalhauError as error:
        fault = f"{type(error).__name__}: {error}"
    await lines.write({"event": "answer", "id": command["id"], "answer": answer, "fault": fault})


async def fail(net_stream: Any) -> None:
    """A handler that is not guarded by itself."""
    raise RuntimeError("this handler fails")


def count_heartbeats(transport: Any) -> None:
    """Count the heartbeats of gossip in `transport.heartbeats`."""
    heartbeat = transport._gossip.meshes.heartbeat
    transport.heartbeats = 0

    def counting() -> None:
        transport.heartbeats += 1
        heartbeat()

    transport._gossip.meshes.heartbeat = counting


def inspect(transport: Any) -> dict[str, Any]:
    """The state of a node."""
    return {
        "peers": sorted(transport.peers),
        "addresses": list(transport.addresses),
        "counters": transport.counters,
        "mesh": transport._gossip.meshes.links("t"),
        "heartbeats": transport.heartbeats,
        "borrowed": transport._swarm._inbound_limiter.borrowed_tokens,
        "sockets": sum(path.is_socket() for path in Path("/proc/self/fd").iterdir()),
    }


# --- in the parent --------------------------------------------------------------------------------


class Child:
    """A child process: its events in order of arrival, and answers to questions by number."""

    def __init__(self, process: Any, lines: Lines) -> None:
        self.process = process
        self._lines = lines
        self._send_events, self._events = trio.open_memory_channel[dict[str, Any]](10_000)
        self._answers: dict[int, tuple[trio.Event, list[dict[str, Any]]]] = {}
        self._number = 0
        self.peer = ""
        self.addresses: list[str] = []

    async def listen(self) -> None:
        while (event := await self._lines.read()) is not None:
            if event["event"] == "answer":
                done, answer = self._answers.pop(event["id"])
                answer.append(event)
                done.set()
            else:
                await self._send_events.send(event)
        self._send_events.close()
        for done, _ in self._answers.values():
            done.set()

    async def event(self, kind: str, timeout: float = PATIENCE, **wanted: Any) -> dict[str, Any]:
        """The next event of this kind with these values; others are ignored."""
        with trio.fail_after(timeout):
            async for event in self._events:
                if event["event"] == kind and wanted.items() <= event.items():
                    return event
        raise AssertionError(f"the process ended before a {kind}; status {self.process.exitcode}")

    async def next_event(self) -> dict[str, Any]:
        """The next event, whatever it is."""
        with trio.fail_after(PATIENCE):
            return await self._events.receive()

    def events_so_far(self, kind: str, **wanted: Any) -> list[dict[str, Any]]:
        """The waiting events of this kind with these values; all waiting events are removed."""
        arrived = []
        while self._events.statistics().current_buffer_used:
            arrived.append(self._events.receive_nowait())
        return [event for event in arrived if event["event"] == kind and wanted.items() <= event.items()]

    async def wait_until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Ask the process for its state until the condition holds; returns that state."""
        with trio.fail_after(PATIENCE):
            while not condition(state := await self.ask("inspect")):
                pass
        return state

    async def ask(self, do: str, **arguments: Any) -> Any:
        """The answer to a command. Raises RuntimeError with the text of a fault."""
        self._number += 1
        done, answer = self._answers[self._number] = (trio.Event(), [])
        await self._lines.write({"do": do, "id": self._number, **arguments})
        with trio.fail_after(PATIENCE):
            await done.wait()
        assert answer, f"the process ended before its answer; status {self.process.exitcode}"
        if answer[0]["fault"]:
            raise RuntimeError(answer[0]["fault"])
        return answer[0]["answer"]

    async def ended(self) -> int:
        """Wait until the process ends by itself; returns its exit status."""
        with trio.fail_after(PATIENCE):
            await trio.to_thread.run_sync(self.process.join, abandon_on_cancel=True)
        return int(self.process.exitcode)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)


@asynccontextmanager
async def start(main: Callable[..., Any], **config: Any) -> AsyncIterator[Child]:
    """Run `main` in a process of its own for the length of the block; then kill it."""
    ours, theirs = socket.socketpair()
    process = context.Process(target=run_child, args=(theirs, main, config), daemon=True)
    await trio.to_thread.run_sync(process.start)
    theirs.close()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    try:
        async with stream, trio.open_nursery() as nursery:
            child = Child(process, Lines(stream))
            nursery.start_soon(child.listen)
            ready = await child.event("ready")
            child.peer, child.addresses = ready.get("peer", ""), ready.get("addresses", [])
            yield child
            nursery.cancel_scope.cancel()
    finally:
        process.kill()
        process.join()


def start_node(**config: Any) -> Any:
    """A process with our transport."""
    return start(node, **config)
