"""Functions as jobs with a fake node, on trio and asyncio: what is brought to it, and what comes back."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bacalhau_p2p import Client, Input, InvalidFunction, InvalidValue, RemoteError, SyncClient, remote
from bacalhau_p2p.functions import interpreter
from bacalhau_p2p.functions.encoding import encode
from bacalhau_p2p.ipfs.files.reader import read_file
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.model.execution import Job, RunOutput
from tests.support.servers.fake_node import FakeNode

Run = Callable[[Callable[[], Awaitable[Any]]], Any]
CORPUS = "bafkreidon73zkcrwdb5iafqtijxildoonbwnpv7dyd6ef3qdgads2jc4su"


@dataclass
class Total:
    words: int


@remote(count=2)
def total(text: str, corpus: Input | None = None) -> Total:
    return Total(len(text.split()))


def last(text: str) -> str:
    return text[-1]


@pytest.fixture(autouse=True)
def _small_interpreter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "python.wasm").write_bytes(b"\0asm of the tests")
    monkeypatch.setattr(interpreter, "checked", lambda: tmp_path / "python.wasm")


@pytest.fixture
def node(fake_node: FakeNode, tmp_path: Path) -> FakeNode:
    """A node that "runs" each job by taking its first argument: what it returns is that, or an error."""
    numbers = iter(range(1000))

    def end(job: Job) -> None:
        url = job.spec.task.input_sources[-1].source.params["URL"]
        argument = json.loads(base64.b64decode(url.partition(",")[2]))[0][0]
        folder = tmp_path / f"results-{next(numbers)}"
        (folder / "value").mkdir(parents=True)
        answer: dict[str, Any] = {"format": 1, "value": argument}
        if argument == "raise":
            answer = {"format": 1, "error": {"type": "KeyError", "message": "'x'", "traceback": "..."}}
        if argument == "Total":
            answer["value"] = Total(3)
        if argument == "forged":
            (folder / "value" / "value.json").write_text('{"format":1,"value":{"$object":["os",{}]}}')
        elif argument != "crash":
            (folder / "value" / "value.json").write_bytes(encode(answer, {"Total": Total}))
        fake_node.complete(job.id, folder, RunOutput(exit_code=134 if argument == "crash" else 0))

    fake_node.on_submit = end
    return fake_node


def uploads(node: FakeNode) -> int:
    return len([method for method, path in node.requests if path.startswith("/api/v1/content")])


def test_a_function_is_brought_to_the_node_once_and_its_value_comes_back(run: Run, node: FakeNode):
    async def main() -> list[Any]:
        async with Client(node.url) as client:
            first = await client.submit_function(total, "Total", corpus=Input(CORPUS))
            second = await client.submit_function(total, "Total")
            return [await first.value(), await second.value(timeout=20), first.id != second.id]

    assert run(main) == [Total(3), Total(3), True]
    assert uploads(node) == 2  # the interpreter, and the function
    spec = next(iter(node.jobs.values())).spec
    assert (spec.name, spec.count, spec.deterministic) == ("total", 2, True)
    sources = {each.target: each.source.params.get("CID") for each in spec.task.input_sources}
    assert sources["/inputs/0"] == CORPUS
    assert node.blocks[CID.parse(str(sources["/interpreter/python.wasm"]))] == b"\0asm of the tests"


def test_many_calls_run_by_map_in_order_or_as_they_end(run: Run, node: FakeNode):
    async def main() -> tuple[list[Any], list[Any]]:
        async with Client(node.url) as client:
            values = await client.map(remote(last), [str(n) for n in range(20)], limit=5)
            outcomes = await client.as_completed(remote(last), ["a", "raise", "b"])
            return values, [(each.input, each.ok, str(each.error)) for each in outcomes]

    values, outcomes = run(main)
    assert values == [str(n) for n in range(20)]
    assert sorted(outcomes) == [("a", True, "None"), ("b", True, "None"), ("raise", False, "KeyError: 'x'")]
    assert uploads(node) == 2


@pytest.mark.parametrize(
    ("argument", "error", "text"),
    [
        ("raise", RemoteError, "KeyError: 'x'"),
        ("crash", RemoteError, "the interpreter crashed: it may have needed more memory than 256mb"),
        ("forged", InvalidValue, "unknown class 'os'"),
    ],
)
def test_what_is_no_value_is_an_error(run: Run, node: FakeNode, argument: str, error: type, text: str):
    async def main() -> None:
        async with Client(node.url) as client:
            await (await client.submit_function(last, argument)).value()

    with pytest.raises(error, match=text):
        run(main)


def test_scripts_call_functions_without_await(node: FakeNode):
    with SyncClient(node.url) as client:
        assert client.submit_function(last, "abc").value(timeout=20) == "abc"
        assert list(client.map(remote(last), ["a", "b"])) == ["a", "b"]
        (outcome,) = client.as_completed(remote(last), ["raise"])
        assert str(outcome.error) == "KeyError: 'x'"


def test_large_arguments_are_added_as_content(run: Run, node: FakeNode):
    node.on_submit = lambda job: None

    async def main() -> None:
        async with Client(node.url) as client:
            await client.submit_function(last, "x" * 100_000)

    run(main)
    (job,) = node.jobs.values()
    cid = CID.parse(str(job.spec.task.input_sources[-1].source.params["CID"]))
    assert b"".join(read_file(cid, node)) == b'[["' + b"x" * 100_000 + b'"],{}]'


def test_nothing_is_submitted_of_a_call_that_cannot_work(run: Run, node: FakeNode):
    async def main() -> None:
        async with Client(node.url) as client:
            with pytest.raises(TypeError, match="missing a required argument: 'text'"):
                await client.submit_function(last)
            with pytest.raises(InvalidValue, match="argument 1: a value of type object cannot be sent"):
                await client.submit_function(last, object())
            with pytest.raises(InvalidFunction, match="use def"):
                await client.submit_function(lambda: None)

    run(main)
    assert node.jobs == {}
