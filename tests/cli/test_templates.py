"""Variables in job files."""

from __future__ import annotations

import click
import pytest

from bacalhau_p2p.cli.templates import filled_in, variables_of


def test_variables_come_from_flags_and_from_the_environment():
    here = {"USER": "me", "USER_ID": "7", "PATH": "/bin"}
    assert variables_of(["a=1,b=x=y", "c=1,2"], "USER.*", here) == {
        "USER": "me",
        "USER_ID": "7",
        "a": "1",
        "b": "x=y",
        "c": "1,2",
    }
    assert variables_of(["USER=you"], "USER", here) == {"USER": "you"}


@pytest.mark.parametrize(("assignments", "names"), [(["a"], None), (["=b"], None), ([], "(")])
def test_what_is_no_variable_is_refused(assignments, names):
    with pytest.raises(click.UsageError):
        variables_of(assignments, names, {})


def test_values_are_written_as_they_are_and_not_read_again():
    assert filled_in(b"a: {{.x}} {{ .y }}", {"x": "{{.y}}", "y": "1"}) == b"a: {{.y}} 1"


@pytest.mark.parametrize("text", [b"{{.z}}", b"{{range .x}}", b"{{ .x | upper }}"])
def test_other_actions_are_refused(text):
    with pytest.raises(click.UsageError):
        filled_in(text, {"x": "1"})
