"""`source_text`: the text and the names of one definition. `test_capture` follows the names."""

from __future__ import annotations

import functools
import linecache
import sys
from types import ModuleType

import pytest

from bacalhau_p2p.errors import InvalidFunction
from bacalhau_p2p.functions.remote import remote
from bacalhau_p2p.functions.source_text import scope_of, source_of

OUTSIDE = 1


@remote(
    memory="1gb",
)
@functools.cache
def decorated(x: OUTSIDE = OUTSIDE) -> "list[int]":  # type: ignore[valid-type] # noqa: UP037
    local = [OUTSIDE + 1 for OUTSIDE in range(x)]
    return functools.reduce(max, local)


def test_the_text_is_that_of_the_file_at_its_line_without_our_decorator():
    source = source_of(decorated.__wrapped__.__wrapped__)
    lines = source.text.splitlines()
    assert lines[:5] == ["", "", "", "@functools.cache", lines[4]]
    assert lines[4].startswith("def decorated(x: OUTSIDE = OUTSIDE)")
    own = open(__file__).read().splitlines()  # noqa: SIM115, PTH123
    assert own[source.line - 1 + 4] == lines[4]
    assert source.file == "test_source_text.py"


def test_names_are_those_from_outside_and_annotations_stand_apart():
    source = source_of(decorated.__wrapped__.__wrapped__)
    assert source.names == {"OUTSIDE", "functools", "range", "max"}
    assert source.annotations == {"OUTSIDE", "list", "int"}
    assert "functools.reduce" in source.chains


def test_a_file_that_was_edited_after_its_import_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "edited_module.py"
    path.write_text("def first(a):\n    return a\n\n\ndef second(a, b):\n    return b\n")
    monkeypatch.syspath_prepend(tmp_path)
    import edited_module  # type: ignore[import-not-found]

    assert source_of(edited_module.second).text == "def second(a, b):\n    return b\n"
    path.write_text("\n\n\ndef first(a):\n    return a\n\n\ndef second(a, b):\n    return b\n")
    for function in (edited_module.first, edited_module.second):
        with pytest.raises(InvalidFunction):
            source_of(function)
    path.write_text("def first(other):\n    return other\n")
    with pytest.raises(
        InvalidFunction, match=r"edited_module.py has changed since first was imported: start"
    ):
        source_of(edited_module.first)


def test_classes_and_functions_of_a_notebook_have_the_source_of_their_last_cell(monkeypatch):
    notebook = ModuleType("notebook_of_the_test")
    monkeypatch.setitem(sys.modules, notebook.__name__, notebook)
    cells = [
        "class Point:\n    x: int\n",
        "%matplotlib inline",
        "import dataclasses\n\n@dataclasses.dataclass\nclass Point:\n    y: int\n\n"
        "def f() -> Point:\n    return Point(1)\n",
    ]
    for number, cell in enumerate(cells):
        file = f"/tmp/ipykernel_1/{number}.py"
        monkeypatch.setitem(linecache.cache, file, (len(cell), None, cell.splitlines(keepends=True), file))
        if not cell.startswith("%"):
            exec(compile(cell, file, "exec"), notebook.__dict__)
    source = source_of(notebook.Point)
    assert (source.text, source.file, source.line) == (
        "@dataclasses.dataclass\nclass Point:\n    y: int\n",
        "2.py",
        3,
    )
    assert source_of(notebook.f).text == "def f() -> Point:\n    return Point(1)\n"


def test_a_definition_inside_another_keeps_its_lines_and_its_strings():
    value = 5

    class Inner:
        def method(self) -> str:
            return f"""
{value}"""

    source = source_of(Inner)
    namespace = dict(scope_of(Inner))
    exec(compile("\n" * (source.line - 1) + source.text, source.file, "exec"), namespace)
    made = namespace["Inner"]
    assert made().method() == "\n5"
    assert made.method.__code__.co_firstlineno == Inner.method.__code__.co_firstlineno
