from __future__ import annotations

import inspect

import pytest

from bacalhau_p2p import errors
from bacalhau_p2p.errors import BacalhauError, Fault, InvalidJob, UnknownJob

CLASSES = [
    error for _, error in inspect.getmembers(errors, inspect.isclass) if issubclass(error, BacalhauError)
]


def test_an_error_without_a_message_shows_the_first_line_of_its_docstring():
    assert str(UnknownJob()) == "no job has this id"
    assert str(UnknownJob("no job has the id abc")) == "no job has the id abc"


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_every_error_has_a_default_message_of_one_line(error):
    shown = str(error("") if error is not InvalidJob else error([]))
    assert shown[0].islower()
    assert not shown.endswith(".")
    assert "\n" not in shown


def test_an_invalid_job_lists_every_fault_with_its_path():
    error = InvalidJob([Fault("Count", "must be at least 1"), Fault("", "the job is empty")])
    assert str(error) == "Count: must be at least 1; the job is empty"
