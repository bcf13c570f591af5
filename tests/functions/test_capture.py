from __future__ import annotations

import asyncio
import functools
import json
import logging
import math
import os.path
import random
import re
import subprocess
import textwrap
import xml.etree.ElementTree
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from random import Random
from types import ModuleType
from typing import Any

import pytest
import yaml
from yaml import safe_load

from bacalhau_p2p.errors import InvalidFunction
from bacalhau_p2p.functions.capture import capture
from bacalhau_p2p.functions.remote import remote
from tests.support.programs.function_runs import run_function

WORD = re.compile(r"[a-z]+", re.IGNORECASE)
LIMITS = {"words": 2, "names": ("a", b"b")}
log = logging.getLogger(__name__)
lock = subprocess.Popen
handle = open(__file__)  # noqa: SIM115, PTH123
square = lambda x: x * x  # noqa: E731
json_alias = json


class Colour(Enum):
    RED = "red"


@dataclass
class Base:
    name: str

    def upper(self) -> str:
        return shout(self.name)


@dataclass
class Word(Base):
    colour: Colour = Colour.RED


def shout(text: str) -> str:
    return text.upper() + "!" * LIMITS["words"]


@functools.lru_cache
def fibonacci(n: int) -> int:
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


@remote
def doubled(x: int) -> int:
    return 2 * x


def words(text: str, most=LIMITS["words"]) -> list[str]:
    log.debug("words")
    return [each for each, _ in Counter(WORD.findall(text)).most_common(most)]


def everything(text: str) -> list[Any]:
    """Uses what stands around it in every way."""
    from base64 import b64encode

    found = [Word(each).upper() for each in words(text)]
    tree = xml.etree.ElementTree.fromstring("<a><b/></a>")
    word = Word("x")
    return [
        found,
        fibonacci(30),
        doubled(21),
        len(tree),
        os.path.join("a", "b"),  # noqa: PTH118
        math.floor(math.pi),
        json_alias.loads("[1]"),
        b64encode(b"x"),
        word,
        LIMITS["names"],
    ]


def test_a_function_takes_with_it_all_that_it_uses(tmp_path):
    assert run_function(everything, "b c a b c b", folder=tmp_path).value == everything("b c a b c b")


def test_a_function_inside_a_function_takes_the_variables_around_it(tmp_path):
    factor, words = 3, ["x"]
    text = """
not indented"""

    def helper(x: int) -> int:
        return x * factor

    @remote(memory="1gb")
    def inner(x: int) -> list[Any]:
        return [
            helper(x),
            words,
            text,
            """
also not indented""",
        ]

    ran = run_function(inner, 5, folder=tmp_path)
    assert ran.value == [15, ["x"], "\nnot indented", "\nalso not indented"]


def test_pieces_stand_after_what_they_need_when_they_are_defined():
    captured = capture(everything)
    names = [piece.source.name for piece in captured.pieces]
    assert names[-1] == "everything"
    assert names.index("Base") < names.index("Word")
    assert captured.classes == {"Colour": Colour, "Word": Word, "Base": Base}
    assert captured.constants == {"LIMITS": LIMITS}
    assert captured.modules == {"os.path", "xml.etree", "xml.etree.ElementTree"}


def test_data_classes_of_annotations_are_sent_and_other_annotations_are_not():
    def rename(word: Base, unknown: ModuleType, page: "pytest.Item") -> "Colour":  # noqa: UP037
        return word.name

    assert set(capture(rename).classes) == {"Base", "Colour"}


def test_the_same_function_gives_the_same_bytes():
    assert capture(everything).document() == capture(everything).document()
    assert b"/tests/" not in capture(everything).document()


def test_a_global_that_has_changed_is_taken_as_it_is_now():
    value = [1]

    def read() -> list[int]:
        return value

    before = capture(read)
    value.append(2)
    assert capture(read).constants == {"value": [1, 2]}
    assert before.document() == capture(read).document()  # a list is not copied before it is sent


async def coroutine() -> None: ...


def generator():
    yield 1


def uses_file():
    return handle.read()


def uses_lambda():
    return square(2)


def uses_native():
    return yaml.safe_load("1")


def uses_part_of_a_package():
    return safe_load("1")


def uses_a_module_that_is_missing():
    import ctypes

    return ctypes


def uses_unknown_module():
    import numpy as np

    return np


def uses_undefined():
    return undefined_thing  # noqa: F821


def imports_relatively():
    from . import x

    return x


generator_of_numbers = Random()


def uses_object():
    return generator_of_numbers.random()


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (len, "len is not a function written in Python: wrap it in one, with def"),
        (Base, "Base is not a function written in Python"),
        (3, "int is not a function"),
        (lambda x: x, "a lambda has no source of its own: use def"),
        (Base("x").upper, "Base.upper is a method of an object, which cannot be sent"),
        (functools.partial(doubled, 1), "functools.partial cannot be sent: send its function"),
        (coroutine, "coroutine is async: a job runs a plain function"),
        (generator, "generator is a generator: return a list"),
        (uses_file, "uses_file uses handle, a TextIOWrapper, which cannot be sent: make it inside"),
        (uses_object, "uses_object uses generator_of_numbers, a Random, which cannot be sent"),
        (uses_lambda, "uses_lambda uses square, a lambda, which has no source: use def"),
        (uses_native, r"uses the module yaml, which is not sent: .* requires=\['yaml'\]"),
        (uses_part_of_a_package, "uses safe_load of yaml, which is not sent"),
        (uses_a_module_that_is_missing, "imports ctypes, which this Python for WebAssembly has not"),
        (uses_unknown_module, "imports numpy, which is not sent"),
        (uses_undefined, "uses_undefined uses undefined_thing, which is not defined"),
        (imports_relatively, "imports_relatively imports from its own package: import by the full name"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_run_as_a_job_is_refused_with_its_name_and_what_to_do(function, problem):
    with pytest.raises(InvalidFunction, match=problem):
        capture(function)


def test_a_function_that_assigns_around_itself_is_refused():
    count = 0

    def counting() -> int:
        nonlocal count
        count += 1
        return count

    with pytest.raises(InvalidFunction, match="counting cannot be sent: it assigns to the nonlocal 'count'"):
        capture(counting)


def test_a_function_without_a_file_is_refused():
    namespace: dict[str, Any] = {}
    exec("def made(): pass", namespace)
    with pytest.raises(InvalidFunction, match="the source of made cannot be read: define it in a file"):
        capture(namespace["made"])


def test_two_things_of_one_name_are_refused(tmp_path, monkeypatch):
    (tmp_path / "other_module.py").write_text(
        textwrap.dedent(
            """
            LIMITS = 5
            def limits():
                return LIMITS
            """
        )
    )
    monkeypatch.syspath_prepend(tmp_path)
    from other_module import limits  # type: ignore[import-not-found]

    def both() -> Any:
        return limits(), LIMITS

    with pytest.raises(InvalidFunction, match="called LIMITS, which come from different modules: rename one"):
        capture(both)


def test_a_module_that_may_be_missing_is_imported_in_a_try():
    def careful() -> bool:
        try:
            import numpy
        except ImportError:
            return False
        return bool(numpy)

    assert capture(careful).name == "careful"


def test_modules_of_packages_that_the_job_brings_are_imported_there():
    captured = capture(uses_part_of_a_package, packages=["yaml"])
    assert captured.imports == {"safe_load": ("yaml", "safe_load")}


def test_what_belongs_to_an_object_of_a_module_is_imported_by_its_name():
    from random import choice

    def pick() -> object:
        return choice([1]), asyncio.iscoroutine(None)

    assert capture(pick).imports["choice"] == ("random", "choice")
    assert random.choice == choice


def test_what_is_in_a_private_module_is_imported_from_the_public_one():
    """Python 3.13 has `Path` in `pathlib._local`, and calls `re.error` PatternError. The job has 3.12."""
    from concurrent.futures import Future
    from pathlib import Path
    from re import error

    def use() -> object:
        return Path, error, Future

    assert capture(use).imports == {
        "Path": ("pathlib", "Path"),
        "error": ("re", "error"),
        "Future": ("concurrent.futures", "Future"),
    }
