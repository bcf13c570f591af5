from __future__ import annotations

import enum
import json
from collections import Counter, OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import partial
from pathlib import Path, PurePosixPath
from typing import ClassVar
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bacalhau_p2p.functions.guest.values import (
    MAX_DEPTH,
    MalformedValue,
    UnsupportedValue,
    Values,
    no_constant,
    unique,
)


class Colour(enum.Enum):
    RED = 1
    GREEN = "green"


class Permission(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass(frozen=True, slots=True)
class Point:
    x: float
    y: float = 0.0


@dataclass
class Shape:
    kind: ClassVar[str] = "shape"
    corners: list[Point]
    colour: Colour = Colour.RED
    area: float = field(init=False, default=0.5)


CLASSES = {"Colour": Colour, "Permission": Permission, "Point": Point, "Shape": Shape}
VALUES = Values(
    partial(json.dumps, ensure_ascii=False, separators=(",", ":"), allow_nan=False),
    partial(json.loads, object_pairs_hook=unique, parse_constant=no_constant),
    CLASSES,
)

EXAMPLES = [
    (None, "null"),
    (True, "true"),
    (0, "0"),
    (-1, "-1"),
    (2**53 - 1, "9007199254740991"),
    (2**53, '{"$int":"0x20000000000000"}'),
    (-(10**30), '{"$int":"-0xc9f2c9cd04674edea40000000"}'),
    (1.0, "1.0"),
    (-0.0, "-0.0"),
    (1e300, "1e+300"),
    (float("inf"), '{"$float":"inf"}'),
    ("", '""'),
    ('é"\n$', '"é\\"\\n$"'),
    (b"\x00\xff", '{"$bytes":"AP8="}'),
    ((1, (2,)), '{"$tuple":[1,{"$tuple":[2]}]}'),
    (frozenset({2, 10, 1}), '{"$frozenset":[1,10,2]}'),
    (1 + 2j, '{"$complex":[1.0,2.0]}'),
    (date(2024, 2, 29), '{"$date":"2024-02-29"}'),
    (datetime(2024, 2, 29, 1, 2, 3, 4), '{"$datetime":"2024-02-29T01:02:03.000004"}'),
    (datetime(2024, 2, 29, tzinfo=UTC), '{"$datetime":"2024-02-29T00:00:00+00:00"}'),
    (time(1, 2, tzinfo=timezone(timedelta(hours=2))), '{"$time":"01:02:00+02:00"}'),
    (timedelta(days=-1, seconds=3), '{"$timedelta":[-1,3,0]}'),
    (Decimal("1.10"), '{"$decimal":"1.10"}'),
    (UUID(int=1), '{"$uuid":"00000000-0000-0000-0000-000000000001"}'),
    (Path("/inputs/a"), '{"$path":"/inputs/a"}'),
    (Colour.GREEN, '{"$enum":["Colour","GREEN"]}'),
    (Point(1.0), '{"$object":["Point",{"x":1.0,"y":0.0}]}'),
]


@pytest.mark.parametrize(("value", "text"), EXAMPLES, ids=[text for _, text in EXAMPLES])
def test_a_value_has_one_text_and_comes_back_from_it(value, text):
    assert VALUES.encode(value) == text.encode()
    back = VALUES.decode(text.encode())
    assert (back, type(back)) == (value, type(value))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([], "[]"),
        ([1, "a", [None]], '[1,"a",[null]]'),
        ([2**53], '[{"$int":"0x20000000000000"}]'),
        ([1.0, float("nan")], '[1.0,{"$float":"nan"}]'),
        ({}, "{}"),
        ({"b": 1, "a": 2}, '{"b":1,"a":2}'),
        ({"$a": 1}, '{"$dict":[["$a",1]]}'),
        ({1: "x", (2,): {"y": None}}, '{"$dict":[[1,"x"],[{"$tuple":[2]},{"y":null}]]}'),
        ({"a", "b"}, '{"$set":["a","b"]}'),
        (set(), '{"$set":[]}'),
    ],
)
def test_a_container_has_one_text_and_comes_back_from_it(value, text):
    assert VALUES.encode(value) == text.encode()
    back = VALUES.decode(text.encode())
    assert (repr(back), type(back)) == (repr(value), type(value)) or back == value


def test_a_data_class_comes_back_with_all_its_fields_without_its_constructor():
    shape = Shape([Point(1.0, 2.0)], Colour.GREEN)
    shape.area = 7.0
    assert VALUES.decode(VALUES.encode(shape)) == shape


@pytest.mark.parametrize(
    ("value", "arrives_as"),
    [
        (Counter("aab"), {"a": 2, "b": 1}),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (namedtuple("Pair", "a b")(1, 2), (1, 2)),
        (enum.IntEnum("Number", "ONE")(1), 1),
        (PurePosixPath("a"), Path("a")),
    ],
)
def test_a_subclass_of_a_built_in_type_arrives_as_that(value, arrives_as):
    back = VALUES.decode(VALUES.encode(value))
    assert (back, type(back)) == (arrives_as, type(arrives_as))


_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
    | st.dates()
    | st.datetimes()
    | st.timedeltas()
    | st.uuids()
    | st.decimals(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
)
_keys = st.integers() | st.text(st.characters(exclude_categories=["Cs"])) | st.binary()
_values = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(_keys, inner, max_size=5)
        | st.sets(_keys, max_size=5)
    ),
    max_leaves=20,
)


@given(_values)
def test_any_value_comes_back_and_has_the_same_text_again(value):
    text = VALUES.encode(value)
    back = VALUES.decode(text)
    assert back == value
    assert type(back) is type(value)
    assert VALUES.encode(back) == text


@given(st.binary() | st.text().map(str.encode) | _values.map(lambda v: json.dumps(repr(v)).encode()))
def test_any_bytes_are_a_value_or_malformed(data):
    try:
        VALUES.encode(VALUES.decode(data))
    except (MalformedValue, UnsupportedValue):
        return


def _nested(levels: int) -> list:
    value: list = []
    for _ in range(levels - 1):
        value = [value]
    return value


def test_values_have_so_many_levels():
    assert VALUES.decode(VALUES.encode(_nested(MAX_DEPTH))) == _nested(MAX_DEPTH)
    with pytest.raises(UnsupportedValue, match="at most 100 levels"):
        VALUES.encode(_nested(MAX_DEPTH + 2))
    for levels in (MAX_DEPTH + 2, 100_000):
        with pytest.raises(MalformedValue):
            VALUES.decode(b"[" * levels + b"]" * levels)


def test_values_have_so_many_lists_and_dicts():
    few, many = [[]] * 999_999, [[]] * 1_000_000
    assert len(VALUES.decode(VALUES.encode(few))) == 999_999
    with pytest.raises(UnsupportedValue, match="more than 1000000 lists and dicts"):
        VALUES.encode(many)
    with pytest.raises(MalformedValue, match="more than 1000000 brackets"):
        VALUES.decode(b"[" + b"{}," * 1_000_000 + b"0]")


@pytest.mark.parametrize("text", ['{"$set":[%s]}', '{"$frozenset":[%s]}', '{"$dict":[%s]}'])
def test_numbers_with_the_same_hash_do_not_take_quadratic_time(text):
    values = [number * (2**61 - 1) for number in range(2**52, 2**52 + 101)]
    numbers = [f'{{"$int":"{value:#x}"}}' for value in values]
    members = [f"[{each},0]" for each in numbers] if "dict" in text else numbers
    assert len(VALUES.decode((text % ",".join(members[:100])).encode())) == 100
    with pytest.raises(MalformedValue, match="more than 100 members or keys have the same hash"):
        VALUES.decode((text % ",".join(members)).encode())


def test_a_value_that_contains_itself_cannot_be_sent():
    value: list = []
    value.append(value)
    with pytest.raises(UnsupportedValue, match="does not contain itself"):
        VALUES.encode(value)


@dataclass
class Unknown:
    x: int


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (object(), "type object cannot be sent: convert it"),
        (len, "builtin_function_or_method"),
        ((each for each in "ab"), "make a list of it"),
        (Unknown(1), "Unknown cannot be sent: let the function use this class by its name"),
        (Permission.READ | Permission.WRITE, "several members of Permission: send each"),
        ("\ud800", "half of a surrogate pair"),
        (range(3), "range"),
        (bytearray(b"x"), "bytearray"),
    ],
)
def test_what_has_no_text_is_refused_with_what_to_do(value, problem):
    with pytest.raises(UnsupportedValue, match=problem):
        VALUES.encode([{"inside": value}])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nul",
        "1 2",
        "NaN",
        '{"a":1,"a":2}',
        '{"$bytes":"A"}',
        '{"$bytes":"AP8=\\n"}',
        '{"$bytes":1}',
        '{"$set":[1,1]}',
        '{"$dict":[[1,2],[1,3]]}',
        '{"$dict":[[1]]}',
        '{"$dict":[[[],2]]}',
        '{"$set":[[]]}',
        '{"$tuple":{}}',
        '{"$int":"x"}',
        '{"$complex":[1,2]}',
        '{"$complex":[1.0]}',
        '{"$date":"2024-02-30"}',
        '{"$timedelta":[1,2]}',
        '{"$timedelta":[1.5,2,3]}',
        '{"$timedelta":[999999999999,0,0]}',
        '{"$decimal":"x"}',
        '{"$uuid":"x"}',
        '{"$enum":["Colour","BLUE"]}',
        '{"$enum":["os.system","x"]}',
        '{"$object":["Point",{"x":1}]}',
        '{"$object":["Point",{"x":1,"y":2,"z":3}]}',
        '{"$object":["Colour",{}]}',
        '{"$object":["subprocess.Popen",{}]}',
        '{"$unknown":1}',
        '{"$tuple":[],"a":1}',
        '{"a":1,"$tuple":[]}',
    ],
)
def test_a_text_that_is_no_value_is_malformed(text):
    with pytest.raises(MalformedValue):
        VALUES.decode(text.encode())


def test_text_that_is_not_utf_8_is_malformed():
    with pytest.raises(MalformedValue):
        VALUES.decode(b'"\xff"')
