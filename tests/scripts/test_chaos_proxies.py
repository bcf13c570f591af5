"""The proxies of scripts/chaos: which connections they cut."""

from __future__ import annotations

import os
import sys
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import trio

SOURCE = Path(__file__).parents[2] / "scripts" / "lib" / "chaos" / "proxies.py"
SPEC = spec_from_file_location("chaos_proxies", SOURCE)
chaos_proxies = sys.modules["chaos_proxies"] = module_from_spec(SPEC)
SPEC.loader.exec_module(chaos_proxies)

HERE = 1
"""The node that is this process."""
STRANGER = 2
ECHO, OTHER = 3, 4


@asynccontextmanager
async def links():
    """Two nodes that echo what they receive, and this process as a third one."""
    with trio.fail_after(20):
        async with chaos_proxies.open_proxies() as proxies:
            proxies.set_process(HERE, os.getpid)
            proxies.set_process(STRANGER, os.getppid)
            for number in (ECHO, OTHER):
                proxies.add_node(number)
                host, _, swarm = proxies.listen_address(number)
                await proxies.nursery.start(partial(trio.serve_tcp, echo, swarm, host=host))
            yield proxies


async def echo(stream):
    with suppress(trio.BrokenResourceError):
        async for chunk in stream:
            await stream.send_all(chunk)


async def dial(proxies, number):
    return await trio.open_tcp_stream(*proxies.dial_address(number))


async def echoed(stream, sent):
    await stream.send_all(sent)
    return await received(stream, len(sent))


async def received(stream, length):
    data = b""
    while len(data) < length and (chunk := await stream.receive_some()):
        data += chunk
    return data


async def test_data_and_its_end_arrive():
    async with links() as proxies, aclosing(await dial(proxies, ECHO)) as stream:
        assert await echoed(stream, b"x" * 1_000_000) == b"x" * 1_000_000
        await stream.send_eof()
        assert await stream.receive_some() == b""


@pytest.mark.parametrize("whom", [(ECHO,), (HERE,), (HERE, ECHO)], ids=["one end", "other end", "both"])
async def test_a_silent_cut_delays_data_until_it_heals(whom):
    async with links() as proxies, aclosing(await dial(proxies, ECHO)) as stream:
        assert await echoed(stream, b"before") == b"before"
        cut(proxies, whom, "silent")
        await stream.send_all(b"during")
        with trio.move_on_after(0.2) as waiting:
            await stream.receive_some()
        assert waiting.cancelled_caught
        proxies.heal(*whom)
        assert await received(stream, 6) == b"during"


@pytest.mark.parametrize("whom", [(ECHO,), (HERE,), (HERE, ECHO)], ids=["one end", "other end", "both"])
async def test_a_reset_closes_connections_and_refuses_new_ones_until_it_heals(whom):
    async with links() as proxies:
        async with aclosing(await dial(proxies, ECHO)) as stream:
            assert await echoed(stream, b"before") == b"before"
            cut(proxies, whom, "reset")
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
        async with aclosing(await dial(proxies, ECHO)) as stream:
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
        proxies.heal(*whom)
        async with aclosing(await dial(proxies, ECHO)) as stream:
            assert await echoed(stream, b"after") == b"after"


@pytest.mark.parametrize("mode", ["silent", "reset"])
async def test_a_cut_between_two_nodes_does_not_affect_others(mode):
    async with links() as proxies, aclosing(await dial(proxies, OTHER)) as stream:
        proxies.separate(HERE, ECHO, mode)
        proxies.separate(STRANGER, OTHER, mode)
        assert await echoed(stream, b"still here") == b"still here"


async def test_a_connection_that_bypasses_the_proxies_is_reported():
    async with links() as proxies, aclosing(await dial(proxies, ECHO)) as stream:
        assert await echoed(stream, b"x") == b"x"
        assert proxies.unproxied_connections() == []
        host, _, swarm = proxies.listen_address(ECHO)
        async with aclosing(await trio.open_tcp_stream(host, swarm)) as direct:
            port = direct.socket.getsockname()[1]
            assert proxies.unproxied_connections() == [f"{port} to node {ECHO}"]


def cut(proxies, whom, mode):
    if len(whom) == 2:
        proxies.separate(*whom, mode)
    else:
        proxies.cut(*whom, mode)
