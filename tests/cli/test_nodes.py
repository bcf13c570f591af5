"""`node list` and `node describe`, with a fake node."""

from __future__ import annotations

import json

import yaml

from tests.support.servers.fake_node import NODE


def test_nodes_are_listed_with_what_is_free_on_them(run, fake_node):
    header, row = run("node", "list").stdout.splitlines()
    assert header.split() == ["ID", "TYPE", "STATUS", "RUNNING", "CPU", "MEMORY", "GPU", "DISK", "LABELS"]
    assert row.split() == [
        NODE[-8:], "Compute", "CONNECTED", "0", *["0", "/", "2"], *["0", "B", "/", "4.0", "GB"],
        *["0", "/", "0"], *["0", "B", "/", "0", "B"], "zone=lab",
    ]  # fmt: skip
    assert "docker noop" in run("node", "list", "--wide").stdout
    assert run("node", "list", "-o", "id").stdout == f"{NODE}\n"
    assert json.loads(run("node", "list", "-o", "json").stdout)[0]["Info"]["NodeID"] == NODE


def test_the_node_is_asked_for_the_nodes_that_are_wanted(run, fake_node):
    flags = ["--labels", "zone=lab,!gpu", "--status", "CONNECTED", "--order-by", "available_cpu", "--reverse"]
    assert run("node", "list", *flags).exit_code == 0
    asked, about = (path for _, path in fake_node.requests)
    assert about == "/api/v1/agent/node"
    for part in ("labels=zone=lab,!gpu", "filter-status=connected", "order_by=available_cpu", "reverse=true"):
        assert part in asked


def test_peers_that_misbehave_are_named_below_a_table_and_nowhere_else(run, fake_node):
    fake_node.about = {
        "WorstSenders": {"mallory": {"unknown": 20000, "rests": 2}},
        "CutOff": {"mallory": 44, "trudy": 3},
        "ChosenLast": {"eve": 30},
    }
    assert run("node", "list").stderr.splitlines() == [
        "peer mallory misbehaves: 20000 unknown, 2 rests, cut off for 44 s",
        "peer trudy misbehaves: cut off for 3 s",
        "node eve is chosen last for 30 s: it was silent, or failed jobs that others ran",
    ]
    for output in ("json", "csv", "id"):
        assert run("node", "list", "-o", output).stderr == ""


def test_a_node_is_described(run):
    assert yaml.safe_load(run("node", "describe", NODE).stdout)["Info"]["NodeType"] == "Compute"
    assert run("node", "describe", "-o", "id", NODE).stdout == f"{NODE}\n"
    unknown = run("node", "describe", "nobody")
    assert (unknown.exit_code, unknown.stdout) == (1, "")
