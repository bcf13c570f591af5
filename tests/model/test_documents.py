from __future__ import annotations

import pytest

from bacalhau_p2p.errors import InvalidJob
from bacalhau_p2p.model.documents import bounded, read_document


def problem(data: bytes | str, **options) -> str:
    with pytest.raises(InvalidJob) as caught:
        read_document(data, **options)
    (fault,) = caught.value.faults
    return fault.problem


def test_json_and_yaml_give_the_same_value():
    json_text = '{"a": [1, 2.5, true, null, "x"], "b": {"c": "d"}}'
    yaml_text = "a:\n- 1\n- 2.5\n- true\n- null\n- x\nb:\n  c: d\n"
    assert read_document(json_text) == read_document(yaml_text) == read_document(json_text.encode())
    assert read_document(json_text, format="json") == read_document(json_text, format="yaml")
    assert read_document("{a: 1}") == {"a": 1}
    assert read_document("\ufeff{}".encode()) == {}


def test_yaml_follows_the_rules_of_version_1_2():
    assert read_document("[no, on, y, 1:30, 2024-01-01, .inf, <<, 0o17, 0x1f, 1e3, ~, '']") == [
        *("no", "on", "y", "1:30", "2024-01-01", ".inf", "<<"),
        *(15, 31, 1000.0, None, ""),
    ]


@pytest.mark.parametrize("data", ["[" * 500_000, "- " * 500_000, '{"a":' * 100_000, "{a: " * 100_000])
def test_deep_nesting_is_rejected_without_a_crash(data):
    assert problem(data) in (
        "the job is nested more than 32 levels deep",
        "not JSON: expecting property name enclosed in double quotes at line 1, column 2",
    )


def test_aliases_that_expand_exponentially_are_rejected():
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert problem("\n".join(lines)) == "the job has more than 50,000 values"


def test_a_recursive_alias_is_rejected():
    assert problem("a: &a [*a]") == "the job is nested more than 32 levels deep"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("x" * 1_048_577, "the job file is too large: 1,048,577 bytes (the limit is 1,048,576)"),
        (b"\xff\xfe", "not UTF-8 text: invalid byte 0xff at position 0"),
        ("a: 1\n b: 2", "not YAML: mapping values are not allowed in this context at line 2, column 3"),
        ('{"a": ' + "9" * 5000 + "}", "not JSON: Exceeds the limit (4300 digits) for integer "
         "string conversion: value has 5000 digits"),
        ("!!python/object:os.system {}", "not YAML: could not determine a constructor for the tag "
         "'tag:yaml.org,2002:python/object:os.system' at line 1, column 1"),
        ("a: !!binary zzzz", "a job can contain only maps, lists, text and numbers, not bytes"),
        ("? [a]\n: b", "not YAML: found unhashable key at line 1, column 3"),
        ('{"a": {"b": 1, "b": 2}}', "not JSON: duplicate key 'b'"),
        ("a:\n  b: 1\n  b: 2", "not YAML: duplicate key 'b' at line 3, column 3"),
        ("a: 1\n---\nb: 2", "not YAML: but found another document at line 2, column 1"),
    ],
)  # fmt: skip
def test_an_error_names_the_problem_and_its_place(data, expected):
    assert problem(data) == expected


def test_yaml_is_rejected_where_json_is_expected():
    assert problem("a: 1", format="json") == "not JSON: expecting value at line 1, column 1"
    assert problem('{"a": NaN}', format="json") == "not JSON: NaN is not a number"


def test_keys_become_text_and_tuples_become_lists():
    assert bounded({1: (1, 2), False: {None: 3}}) == {"1": [1, 2], "false": {"null": 3}}
