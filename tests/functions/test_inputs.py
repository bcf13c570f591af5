from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from bacalhau_p2p.errors import InvalidValue
from bacalhau_p2p.functions.inputs import Input, Placed


def test_each_content_has_one_place_and_paths_stand_for_it():
    placed = Placed()
    value = [Input("a"), (Input("b", "/data/b"), Input("a")), {"c": Input("c/d")}, "a"]
    first, second = PurePosixPath("/inputs/0"), PurePosixPath("/data/b")
    assert placed.place(value) == [first, (second, first), {"c": PurePosixPath("/inputs/2")}, "a"]
    assert placed.targets == {"/inputs/0": "a", "/data/b": "b", "/inputs/2": "c/d"}


def test_two_contents_at_one_path_are_refused():
    placed = Placed()
    placed.add({"/inputs/corpus": "a"})
    with pytest.raises(InvalidValue, match="two inputs have the path /inputs/corpus: change one of them"):
        placed.place(Input("b", "/inputs/corpus"))


def test_a_job_has_so_many_inputs():
    with pytest.raises(InvalidValue, match="more than 256 inputs: add a folder that has them"):
        Placed().place([Input(str(number)) for number in range(300)])
