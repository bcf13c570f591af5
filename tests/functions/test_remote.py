"""Covers `options`."""

from __future__ import annotations

import pytest

from bacalhau_p2p.errors import InvalidFunction
from bacalhau_p2p.functions.remote import FunctionOptions, as_remote, remote


@remote
def double(x: int) -> int:
    """Twice as much."""
    return 2 * x


@remote(memory="1gb", count=3)
def triple(x: int) -> int:
    return 3 * x


def test_called_directly_it_runs_here():
    assert double(4) == 8
    assert double.__doc__ == "Twice as much."
    assert repr(double) == "<remote function double>"


def test_options_are_kept_and_changed_in_a_copy():
    assert double.options == FunctionOptions()
    assert triple.options == FunctionOptions(memory="1gb", count=3)
    cheap = triple.with_options(memory="64mb")
    assert (cheap.options.memory, cheap.options.count, cheap(1)) == ("64mb", 3, 3)
    assert triple.options.memory == "1gb"


def test_a_plain_function_gets_default_options_and_a_remote_one_keeps_its_own():
    def plain() -> None: ...

    assert as_remote(plain).options == FunctionOptions()
    assert as_remote(triple) is triple


def test_arguments_are_checked_as_by_a_call():
    double.check_arguments([1], {})
    with pytest.raises(TypeError, match="too many positional arguments"):
        double.check_arguments([1, 2], {})


def test_what_cannot_run_as_a_job_is_refused_where_it_is_marked():
    with pytest.raises(InvalidFunction, match="use def"):
        remote(lambda x: x)


def test_an_unknown_option_is_an_error():
    with pytest.raises(TypeError, match="gpus"):
        remote(gpus=1)  # type: ignore[call-overload]


def test_packages_are_loaded_once():
    function = double.with_options(requires=["iniconfig"])
    captured, bundle = function.capture()
    assert captured.name == "double"
    assert "packages/iniconfig/__init__.py" in bundle.files
    assert function.capture()[1].digest == bundle.digest
