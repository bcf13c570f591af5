"""The requests with curl in docs/api.md, one after the other, against a real network: each response has what
the page shows of it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from typing import Any

import pytest

from tests.support.doc_blocks import blocks
from tests.support.networks.networks import REPOSITORY, Node, devstack

pytestmark = pytest.mark.network

PAGE = REPOSITORY / "docs" / "api.md"
LOCAL, REMOTE = "127.0.0.1:1234", "192.0.2.7:1234"
"""The node of the page, and its node with a token."""
_FENCED = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_DIFFERENT = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "ID"),
    (re.compile(r"\b12D3KooW\w+"), "PEER"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z"), "TIME"),
    (re.compile(r"(127\.0\.0\.1[:/])(tcp/)?\d+"), r"\1\2PORT"),
)
"""What differs between two runs, and what stands for it in a comparison. A CID does not differ."""
COUNTED = frozenset({"SeqNum", "Position"})
"""Numbers of events, which depend on how many nodes have declined before."""


@dataclass(frozen=True)
class Example:
    command: str
    response: str
    """As the page shows it, shortened; empty where it does not."""


def examples(text: str) -> Iterator[Example]:
    """The commands of each block `sh`, with the blocks that follow it: one for each command, or none."""
    commands, responses = list[str](), list[str]()
    for found in [*_FENCED.finditer(text), None]:
        if found is not None and found["language"] in ("json", "text"):
            responses.append(found["text"])
        else:
            shown = responses if responses else [""] * len(commands)
            yield from starmap(Example, zip(commands, shown, strict=True))
            commands, responses = [], []
            if found is not None and found["language"] == "sh":
                commands = re.split(r"\n(?=curl )", found["text"].strip())


EXAMPLES = list(examples(PAGE.read_text()))


def contains(response: Any, shown: Any, key: str = "") -> bool:
    """Whether a response has what is shown of it: keys of an object, items of a list in this order."""
    if isinstance(shown, dict):
        return isinstance(response, dict) and all(
            name in response and contains(response[name], value, name) for name, value in shown.items()
        )
    if isinstance(shown, list):
        rest = iter(response if isinstance(response, list) else [])
        return all(any(contains(item, wanted) for item in rest) for wanted in shown) and bool(
            shown or not response
        )
    if isinstance(shown, str):
        return isinstance(response, str) and same_text(response) == same_text(shown)
    return type(response) is type(shown) and (key in COUNTED or response == shown)


def same_text(text: str) -> str:
    for pattern, name in _DIFFERENT:
        text = pattern.sub(name, text)
    return text


def is_as_shown(printed: str, shown: str) -> bool:
    """Whether a response is as the page shows it: JSON, or server-sent events, each in a line."""
    if not re.search(r"^(id|data): ", shown, re.MULTILINE):
        return contains(json.loads(printed), json.loads(shown))
    lines, wanted = printed.splitlines(), shown.splitlines()
    return len(lines) == len(wanted) and all(
        contains(json.loads(line[6:]), json.loads(expected[6:].replace(",...}", "}")))
        if expected.startswith("data: ") and line.startswith("data: ")
        else re.sub(r"[1-9]\d*", "N", line) == re.sub(r"[1-9]\d*", "N", expected)
        for line, expected in zip(lines, wanted, strict=True)
    )


def run(command: str, lines: int) -> str:
    """What a command prints. A stream without an end is read for so many lines."""
    with subprocess.Popen(["bash", "-c", f"exec {command}"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if "text/event-stream" not in command:
            return process.communicate(timeout=90)[0]
        try:
            return "".join(process.stdout.readline() for _ in range(lines))
        finally:
            process.kill()


def test_every_request_of_the_page_is_answered_as_the_page_says(tmp_path: Path):
    start, *requests = (example for example in EXAMPLES if REMOTE not in example.command)
    flags = start.command.removeprefix("bacalhau-p2p devstack ").replace("--api-port 1234", "--api-port 0")
    with devstack(*flags.split(), folder=tmp_path) as (network, _):
        for example in requests:
            printed = run(
                example.command.replace(LOCAL, f"127.0.0.1:{network.port}"), example.response.count("\n")
            )
            assert is_as_shown(printed, example.response), f"{example.command}\nprints\n{printed}"
    assert len(requests) >= 7


def test_the_request_with_a_token_is_answered_by_a_node_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    [example] = [example for example in EXAMPLES if REMOTE in example.command]
    monkeypatch.setenv("BACALHAU_P2P_API_TOKEN", "d1d0b9be3e1f6e2c")
    node = Node(tmp_path, "--no-compute")
    try:
        command = example.command.replace(REMOTE, f"127.0.0.1:{node.network.port}")
        assert is_as_shown(run(command, 0), example.response)
        refused = json.loads(run(re.sub(r"-H '.*?'|-H \".*?\"", "", command), 0))
        assert refused["Status"] == 401
    finally:
        node.stop()


def test_no_request_with_curl_is_left_out():
    """Those of other pages are run by test_guides.py."""
    for page in [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]:
        shown = [found["text"] for found in _FENCED.finditer(page.read_text()) if "curl " in found["text"]]
        run_elsewhere = [block.text for block in blocks(page) if block.is_run]
        here = [example.command for example in EXAMPLES] if page == PAGE else []
        left_out = [text for text in shown if text not in run_elsewhere and not any(c in text for c in here)]
        assert left_out == [], page


@pytest.mark.parametrize(
    ("response", "shown"),
    [
        ('{"a": 1}', '{"a": 2}'),
        ('{"a": 1}', '{"b": 1}'),
        ('{"a": 1}', '{"a": "1"}'),
        ('[{"a": 1}, {"a": 2}]', '[{"a": 2}, {"a": 1}]'),
        ('{"a": [1]}', '{"a": []}'),
        ("id: 1\n\n", "id: 0\n\n"),
        ('data: {"Kind":"Ended"}\n', 'data: {"Kind":"Failed",...}\n'),
    ],
)
def test_another_response_than_shown_is_noticed(response: str, shown: str):
    assert is_as_shown(response, response)
    assert not is_as_shown(response, shown)
