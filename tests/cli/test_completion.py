"""Scripts for shells, and what they offer."""

from __future__ import annotations

import json

import pytest
from click.shell_completion import BashComplete

from bacalhau_p2p.cli.root import cli

ID = "095be3fd-7c4e-4b6f-9d2e-000000000001"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_script(run, shell):
    script = run("completion", shell).stdout
    assert "_BACALHAU_P2P_COMPLETE" in script
    assert f"{shell}_complete" in script


def offered(*words: str) -> list[str]:
    found = BashComplete(cli, {}, "bacalhau-p2p", "_BACALHAU_P2P_COMPLETE")
    return [item.value for item in found.get_completions(list(words[:-1]), words[-1])]


def test_commands_flags_and_ids_of_jobs_are_completed(run, fake_node, monkeypatch):
    run("version")  # the fixture names the node in the environment
    fake_node.add_job(ID)
    assert offered("job", "de") == ["describe"]
    assert offered("desc") == ["describe"]
    assert "--reason" in offered("stop", "--rea")
    assert offered("describe", "09") == [ID]
    assert offered("job", "stop", "0a") == []


def test_ids_of_nodes_are_completed(run, fake_node):
    run("version")
    (node,) = json.loads(run("node", "list", "-o", "json").stdout)
    node_id = node["Info"]["NodeID"]
    assert offered("node", "describe", node_id[:10]) == [node_id]
    assert offered("node", "describe", "other") == []
    for flag in ("--allow-peer", "--deny-peer", "--allow-requester", "--deny-requester"):
        assert offered("serve", flag, node_id[:10]) == [node_id]


def test_what_is_pinned_is_completed(run, fake_node):
    run("version")
    fake_node.pins = [("bafya", "user"), ("bafyb", "published:1"), ("bafyb", "user"), ("other", "user")]
    assert offered("content", "pin", "bafy") == ["bafya", "bafyb"]
    assert offered("content", "unpin", "bafy") == ["bafya", "bafyb"]
    assert offered("content", "unpin", "--owner", "published:1", "bafy") == ["bafyb"]
    fake_node.add_job("ba-job")
    assert offered("get", "ba") == ["ba-job", "bafya", "bafyb"]


def test_executions_and_jobs_are_completed_in_flags(run, fake_node, tmp_path):
    run("version")
    fake_node.add_job(ID)
    (tmp_path / "results").mkdir()
    fake_node.complete(ID, tmp_path / "results")
    (execution,) = fake_node.executions[ID]
    assert offered("logs", ID, "--execution", "") == [execution.id]
    assert offered("logs", "--execution", "") == []
    assert offered("events", "--job", ID[:4]) == [ID]
    assert offered("list", "--id-filter", ID[:4]) == [ID]


def test_nothing_is_offered_without_a_node(run, monkeypatch):
    monkeypatch.setenv("BACALHAU_P2P_API_PORT", "1")
    assert offered("describe", "09") == []
    monkeypatch.setenv("BACALHAU_P2P_API_PORT", "no port")
    assert offered("describe", "09") == []


def test_the_options_of_an_input_are_completed():
    for command in (("docker", "run"), ("wasm", "run")):
        value = "texts:/inputs,opt=partition="
        assert f"{value}object" in offered(*command, "-i", value)
        assert offered(*command, "--input", "tex") == ["tex"]  # the shell completes it to paths
