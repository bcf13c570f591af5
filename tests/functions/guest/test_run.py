"""`run` in a process of this Python. tests/e2e/test_functions.py has it in the interpreter of jobs."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest

from bacalhau_p2p.errors import RemoteError
from tests.support.programs.function_runs import run_function


@dataclass
class Total:
    words: int
    names: set[str]


def add(total: Total, *more: str, label: str = "") -> Total:
    sys.stdout.write(f"adding {label}\n")
    sys.stderr.write("to stderr\n")
    return Total(total.words + len(more), total.names | set(more))


def refuse(number: int) -> None:
    def inner() -> None:
        raise ValueError(f"not {number}\x1b[31m")

    inner()


def leave() -> None:
    sys.exit(3)


class Odd(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def raise_odd() -> None:
    raise Odd


def return_a_module() -> object:
    return sys


def return_much() -> str:
    return "x" * 17_000_000


def test_a_function_is_called_with_its_arguments_and_its_value_comes_back(tmp_path):
    ran = run_function(add, Total(1, {"a"}), "b", "c", label="two", folder=tmp_path)
    assert ran.value == Total(3, {"a", "b", "c"})
    assert (ran.exit_code, ran.stdout, ran.stderr) == (0, "adding two\n", "to stderr\n")


def test_an_exception_comes_back_as_text_with_the_users_lines(tmp_path):
    with pytest.raises(RemoteError) as raised:
        run_function(refuse, 7, folder=tmp_path)
    error = raised.value
    assert str(error) == "ValueError: not 7\ufffd[31m"
    assert (error.type_name, error.remote_message) == ("ValueError", "not 7\ufffd[31m")
    lines = error.traceback.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert [line.strip() for line in lines if "^" not in line][2::2] == [
        "inner()",
        'raise ValueError(f"not {number}\\x1b[31m")',
    ]
    assert lines[1].startswith('  File "test_run.py", line ')


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (leave, "SystemExit: 3"),
        (raise_odd, "Odd: its message cannot be made"),
        (return_a_module, "^UnsupportedValue: a value of type module cannot be sent"),
        (return_much, "limit is 16777216: write it to a file in /outputs"),
    ],
)
def test_whatever_ends_a_function_is_told(function, text, tmp_path):
    with pytest.raises(RemoteError, match=text):
        run_function(function, folder=tmp_path)
