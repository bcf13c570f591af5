"""Which words of `docker run` are ours, and which are those of the program (`program_command`)."""

from __future__ import annotations

import pytest
import yaml

RUN = ("docker", "run", "--dry-run")


@pytest.mark.parametrize(
    ("words", "parameters", "count"),
    [
        (("busybox", "--", "sh", "-c", "true"), ["sh", "-c", "true"], 1),
        (("-c", "2", "busybox", "--", "head", "-c", "5"), ["head", "-c", "5"], 2),
        (("busybox", "-c", "2", "echo", "hi"), ["echo", "hi"], 2),
        (("busybox", "-c2", "--", "echo"), ["echo"], 2),
        (("busybox", "echo", "hi", "--count", "2"), ["echo", "hi"], 2),
        (("busybox", "echo", "--count=2", "hi"), ["echo", "hi"], 2),
        (("--name", "-x", "busybox", "cat", "-"), ["cat", "-"], 1),
    ],
)
def test_options_are_ours_before_the_command_and_long_ones_everywhere(run, words, parameters, count):
    job = yaml.safe_load(run(*RUN, *words).stdout)
    assert (job["Tasks"][0]["Engine"]["Params"]["Parameters"], job["Count"]) == (parameters, count)


@pytest.mark.parametrize(
    ("words", "program"),
    [
        (("busybox", "sh", "-c", "true"), "sh"),
        (("busybox", "head", "-c", "5", "/inputs/x"), "head"),
        (("-c", "2", "busybox", "--name", "-x", "head", "-c5"), "head"),
        (("busybox", "sh", "-c", "true", "--", "x"), "sh"),
    ],
)
def test_a_short_option_of_the_command_is_refused_with_what_to_write(run, words, program):
    result = run(*RUN, *words)
    assert (result.exit_code, result.stdout) == (2, "")
    said, _ = result.stderr.splitlines()
    assert f"behind {program!r} may be an option of the job or of bacalhau-p2p" in said
    assert said.endswith(f"put -- before the command: busybox -- {program} ...")


def test_an_unknown_option_may_be_meant_for_the_command(run):
    assert run(*RUN, "python", "python", "--version").stderr.splitlines()[0] == (
        "Error: no such option --version (did you mean --verifier?); "
        "if it is meant for 'python', put -- before the command: python -- python ..."
    )
    assert "meant for" not in run(*RUN, "--version", "python").stderr
