"""YAML for people: the same text as PyYAML writes, whatever the values are."""

from __future__ import annotations

import random
from typing import Any

import pytest
import yaml

from bacalhau_p2p.model import yaml_text as module
from bacalhau_p2p.model.documents import YamlLoader
from bacalhau_p2p.model.yaml_text import WIDTH, yaml_text

LOOK_LIKE_NUMBERS = """1 1.5 0x1f 0o7 0b1 1_000 12:30:45 1e3 1e5. 1. 1e+3 .5 .inf -1 +1 2026-11-30 09 _1
123abc 2026-11-30T09:00:00Z 095be3fd-1e2 12e4 yes No null Null ~ = << true on y n"""
LOOK_LIKE_SYNTAX = """a a: a:b : :a a#b #a *a &a !a %a @a `a | >a 'a' "a" it's a,b [a] {a} ? a?b - -- --- ...
ipfs://bafy größe"""
LINES = [
    "a\nb",
    "a\nb\n",
    "a\n\n",
    "\na",
    "\n",
    "a \nb",
    "a\n b",
    "a\n\nb\n",
    "a\nb: c\n",
    "# a\nb",
    "x\n...\n",
]
BLANKS = [
    "",
    " a",
    "a ",
    "a  b",
    "yes sir",
    "- a",
    "a: b",
    "a #b",
    "? a",
    "--- a",
    "a'b: c",
    "/x y",
    "word " * 60,
]
OTHERS = [
    "a\tb",
    "a\tb\nc",
    "a\r\nb",
    "\x1b[31m",
    "\x7f",
    "a\u2028b",
    "e\u0301",
    "größe\nb",
    "x" * 300,
    "a" * (WIDTH - 12) + " b c",
]
TEXTS = [*LOOK_LIKE_NUMBERS.split(), *LOOK_LIKE_SYNTAX.split(), *LINES, *BLANKS, *OTHERS]
NUMBERS = [1, -5, 0, 10**30, 1.5, -0.0, 100.0, 1e20, 1e-7, float("inf"), float("nan"), True, False, None]


def as_by_pyyaml(value: object, dumper: Any) -> str:
    text = module._dumped(value, dumper)
    return text.removesuffix("...\n") if text.endswith("\n...\n") else text


def any_value(rng: random.Random, depth: int = 0) -> object:
    chance = rng.random() if depth < 5 else 1.0
    if chance < 0.3:
        return {
            rng.choice([*TEXTS, "key", "Name"]): any_value(rng, depth + 1) for _ in range(rng.randrange(4))
        }
    if chance < 0.5:
        return [any_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return rng.choice([*TEXTS, *NUMBERS])


def test_keys_keep_their_order_and_text_its_lines():
    value = {"Stdout": "42 degrees\nand falling\n", "Name": "größe", "Count": 1}
    assert yaml_text(value) == "Stdout: |\n  42 degrees\n  and falling\nName: größe\nCount: 1\n"
    assert yaml.safe_load(yaml_text(value)) == value


@pytest.mark.parametrize("dumper", [module._Dumper, module._PythonDumper])
@pytest.mark.parametrize("text", TEXTS)
def test_awkward_text_is_written_as_pyyaml_writes_it(text, dumper):
    key = text or "k"
    shapes = [text], [[text]], [[[text, 1]], text], [{"a": text, "b": text}], {"k": text}, {"k": [text]}
    for value in (*shapes, {"k": {"l": text}}, {key: text}, {key: {}}, {"k": {key: [text, {key: []}]}}):
        assert yaml_text(value) == as_by_pyyaml(value, dumper)
        assert yaml.safe_load(yaml_text(value)) == yaml.load(yaml_text(value), Loader=YamlLoader) == value


def test_any_value_is_written_as_pyyaml_writes_it():
    rng = random.Random(1)
    for _ in range(500):
        value = {"value": any_value(rng)}
        assert yaml_text(value) == as_by_pyyaml(value, module._Dumper)


@pytest.mark.parametrize(
    "text", ["\U0001f600", "a\U0001f600\nb\n", "\ud800 half", "\U0001f600: {", "a\x85b\nc"]
)
def test_emojis_are_shown_and_halves_of_characters_escaped(text):
    shown = yaml_text([{"k": text}])
    assert ("\U0001f600" in shown) == ("\U0001f600" in text)
    assert shown.encode()
    if "\ud800" not in text:
        assert yaml.safe_load(shown) == [{"k": text}]


@pytest.mark.parametrize("value", [[], {}, "a", "", 1, None, ["a\n\n"]])
def test_anything_is_a_document(value):
    assert yaml.safe_load(yaml_text(value)) == value
