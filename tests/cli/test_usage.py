"""Wrong command lines, and what is said about them."""

from __future__ import annotations

import errno

import click
import pytest


@pytest.mark.parametrize(
    ("words", "said", "help_of"),
    [
        ("--api-port http list", "--api-port: 'http' is not a whole number from 1 to 65535", ""),
        ("lsit", "no such command 'lsit' (did you mean 'list'?)", ""),
        ("job nonsense", "no such command 'nonsense'", "job"),
        ("list --limt 3", "no such option --limt (did you mean --limit?)", "list"),
        ("list --node-detail", "no such option --node-detail", "list"),
        ("list -n 0", "--limit: '0' is not a whole number from 1 to 10000", "list"),
        ("logs --tail -1 abc", "--tail: '-1' is not a whole number, 0 or more", "logs"),
        ("list -o xml", "--output: 'xml' is not one of 'table', 'wide', 'json', 'yaml', 'csv', 'id'", "list"),
        ("describe", "missing JOB", "describe"),
        ("job run missing.yaml", "file 'missing.yaml' does not exist", "job run"),
        ("add missing", "path 'missing' does not exist", "add"),
        ("completion tcsh", "'tcsh' is not one of 'bash', 'zsh', 'fish'", "completion"),
        ("get a --all --raw", "--all and --raw exclude each other", "get"),
        ("--api-host a:1 list", "'a:1' is not a host: use --api-host HOST --api-port PORT", "list"),
        ("--api-host http://a list", "'http://a' is not a host: use --api-host HOST --api-port PORT", "list"),
        ("serve --swarm-port 70000", "--swarm-port: '70000' is not a whole number from 0 to 65535", "serve"),
        ("list extra", "got unexpected extra argument (extra)", "list"),
    ],
)
def test_wrong_usage_is_one_line_and_where_to_read_more(run, words, said, help_of):
    result = run(*words.split())
    place = f"bacalhau-p2p {help_of}".strip()
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"Error: {said}\nSee '{place} --help'.\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("docker run --cpu lots busybox", "--cpu: 'lots' is not a number of cores, such as 0.5 or 500m"),
        (
            "docker run --timeout soon busybox",
            "--timeout: 'soon' is not a duration, such as 90 (seconds), 30m or 1h30m",
        ),
        ("docker run -i ipfs://nonsense busybox", "--input: 'nonsense' is not a CID"),
        ("wasm run -i ipfs://nonsense ipfs://bafkqaaa", "--input: 'nonsense' is not a CID"),
    ],
)
def test_the_faults_of_a_job_are_told_by_the_options_that_they_come_from(run, words, said):
    command, *rest = words.split()
    result = run(command, rest[0], "--dry-run", *rest[1:])
    assert (result.exit_code, result.stderr) == (125, f"Error: {said}\n")


@pytest.mark.parametrize("words", [("job", "run"), ("validate",)])
def test_faults_of_a_job_file_are_told_with_its_name(run, tmp_path, words):
    (tmp_path / "job.yaml").write_text("Tasks: [")
    one = run(*words, "job.yaml").stderr
    assert one.startswith("Error: job.yaml: not YAML: ")
    (tmp_path / "job.yaml").write_text("Tasks: []\nCount: many")
    assert run(*words, "job.yaml").stderr.splitlines()[0] == "Error: invalid job in job.yaml:"
    assert run(*words, "-", input="").stderr == "Error: standard input: the document is empty\n"


def test_a_group_without_a_command_shows_its_help(run):
    result = run("node")
    assert result.output.startswith("Usage: bacalhau-p2p node")
    assert result.exit_code == 2


def test_an_unknown_host_is_named(run):
    result = run("--api-host", "no-such-host.invalid", "list")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: cannot find the host of http://no-such-host.invalid:")


def test_a_full_disk_is_told_as_such(run, monkeypatch):
    echo = click.echo

    def full(*words: object, err: bool = False, **more: object) -> None:
        if not err:
            raise OSError(errno.ENOSPC, "No space left on device")
        echo(*words, err=True, **more)

    monkeypatch.setattr(click, "echo", full)
    result = run("version")
    assert (result.exit_code, result.stderr) == (1, "Error: cannot write: No space left on device\n")
