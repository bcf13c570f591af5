"""Python functions as jobs, in the real interpreter on real nodes."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest

from bacalhau_p2p import Client, Input, JobFailed, RemoteError, remote
from bacalhau_p2p.functions.interpreter import MISSING, STANDARD_LIBRARY
from tests.support.networks.networks import REPOSITORY, Network, devstack

pytestmark = pytest.mark.network

TEXTS = REPOSITORY / "examples" / "wordcount" / "texts"
WORD = re.compile(r"[a-z]+")
PATIENCE = 240.0
"""Seconds for one job. Each node compiles the interpreter first, for each mode of the executor."""


@dataclass(frozen=True)
class Finding:
    word: str
    share: Decimal


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with devstack("--engine", "wasm", "--compute-nodes", "3") as (network, _):
        network.wait_for_compute_nodes(3)
        yield network


@pytest.fixture
async def client(network: Network) -> AsyncIterator[Client]:
    async with Client(f"http://127.0.0.1:{network.port}") as client:
        yield client


def echo(*values: object, **named: object) -> object:
    sys.stdout.write("before\n")
    return [values, named, sys.version_info[:2], sys.platform]


async def test_values_go_there_and_back(client: Client):
    values = [
        None,
        1.5,
        2**70,
        "é\n",
        b"\0",
        (1, {2}),
        {"a": [], 3: Decimal("1.10")},
        Path("/x"),
        float("inf"),
    ]
    job = await client.submit_function(echo, *values, key={"nested": [True]})
    assert await job.value(PATIENCE) == [tuple(values), {"key": {"nested": [True]}}, (3, 12), "wasi"]
    result = await job.wait_result(PATIENCE)
    assert (result.stdout, result.stderr, result.exit_code) == (b"before\n", b"", 0)
    assert b"".join([piece.data async for piece in job.logs()]) == b"before\n"


def divide(a: int, b: int) -> float:
    return a / b


async def test_an_exception_comes_back_with_its_traceback(client: Client):
    job = await client.submit_function(divide, 1, 0)
    with pytest.raises(RemoteError, match=r"^ZeroDivisionError: division by zero$") as raised:
        await job.value(PATIENCE)
    assert "    return a / b\n" in raised.value.traceback
    result = await job.wait_result(PATIENCE)
    assert result.stderr.decode() == raised.value.traceback


@remote(memory="64mb")
def fill() -> int:
    return len(bytearray(100_000_000))


async def test_more_memory_than_reserved_is_a_memory_error(client: Client):
    with pytest.raises(RemoteError, match=r"^MemoryError"):
        await (await client.submit_function(fill)).value(PATIENCE)


@remote(timeout=10, cpu=0.1)
def spin() -> None:
    while True:
        pass


async def test_a_function_that_does_not_end_is_ended(client: Client):
    with pytest.raises(JobFailed, match="10 s"):
        await (await client.submit_function(spin)).value(PATIENCE)


@remote(count=3)
def frequencies(corpus: Path) -> list[Finding]:
    texts = [path.read_text().lower() for path in sorted(corpus.iterdir())]
    counts = Counter(word for text in texts for word in WORD.findall(text))
    Path("/outputs/words.txt").write_text("\n".join(sorted(counts)))
    total = counts.total()
    # Everything below would differ between nodes if it were real.
    sys.stdout.write(f"{time.time()} {random.random()} {hash('a')} {object()} {set('hello')}\n")
    return [Finding(word, round(Decimal(number) / total, 4)) for word, number in counts.most_common(3)]


async def test_three_nodes_agree_on_the_words_of_a_folder_by_its_cid(client: Client):
    corpus = await client.add(TEXTS)
    job = await client.submit_function(frequencies, Input(corpus))
    findings = await job.value(PATIENCE)
    texts = [path.read_text().lower() for path in TEXTS.iterdir()]
    counts = Counter(word for text in texts for word in WORD.findall(text))
    assert findings == [
        Finding(word, round(Decimal(number) / counts.total(), 4)) for word, number in counts.most_common(3)
    ]
    result = await job.wait_result(PATIENCE)
    assert len(result.executions) == 3
    assert len({execution.node_id for execution in result.executions}) == 3
    assert len((await result.read("outputs/words.txt")).splitlines()) == len(counts)


def greet(name: str) -> str:
    import greeting

    return greeting.hello(name)


async def test_a_wheel_is_imported_there(client: Client, tmp_path: Path):
    wheel = tmp_path / "greeting-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("greeting/__init__.py", "from greeting.words import HELLO\nhello = HELLO.format")
        archive.writestr("greeting/words.py", "HELLO = 'hello {}'")
    job = await client.submit_function(remote(requires=[wheel])(greet), "world")
    assert await job.value(PATIENCE) == "hello world"


def square(x: int) -> int:
    return x * x


async def test_a_function_is_mapped_over_many_inputs(client: Client):
    values = [value async for value in client.map(remote(square), range(20), limit=8, timeout=PATIENCE)]
    assert values == [x * x for x in range(20)]


def test_the_example_finds_words_in_books(network: Network):
    done = subprocess.run(
        [sys.executable, REPOSITORY / "examples" / "concordance.py", "rabbit", "paradise"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "BACALHAU_P2P_API_PORT": str(network.port)},
        timeout=PATIENCE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line for line in lines if not line.startswith(" ")][:2] == [
        "alice_in_wonderland: 47 times 'rabbit'",
        "alice_in_wonderland: 0 times 'paradise'",
    ]
    assert sum("[Rabbit]" in line for line in lines) == 3
    assert lines[-1].startswith("together, most often: the (5307), and (4959), ")


def modules_that_are_missing(names: list[str]) -> dict[str, str]:
    import importlib

    missing = {}
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            missing[name] = str(error)
    return missing


async def test_the_interpreter_has_all_modules_but_those_that_are_listed(client: Client):
    public = {name for name in STANDARD_LIBRARY if not name.startswith("_")}
    shown = sorted(public - {"antigravity", "this", "idlelib"})
    job = await client.submit_function(modules_that_are_missing, [*shown, "ssl", "ctypes"])
    assert set(await job.value(PATIENCE)) == {"ssl", "ctypes"} <= MISSING
