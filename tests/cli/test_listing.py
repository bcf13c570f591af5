"""Lists in every format."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
import yaml

from bacalhau_p2p.cli.listing import csv_row, print_item, print_list
from bacalhau_p2p.cli.table import Column
from bacalhau_p2p.model.documents import YamlLoader
from bacalhau_p2p.model.yaml_text import yaml_text

COLUMNS = [
    Column("ID", lambda item: item["id"][:2], lambda item: item["id"]),
    Column("NAME", lambda item: item["name"]),
    Column("MORE", lambda item: "m", only_wide=True),
]
ITEMS = [{"id": "abc", "name": 'a,"b"'}, {"id": "def", "name": "c\nd"}]


def shown(capsys: pytest.CaptureFixture[str], output: str, **flags: bool) -> str:
    print_list(ITEMS, COLUMNS, output, id_of=lambda item: item["id"], **flags)
    return capsys.readouterr().out


def test_a_table_is_cut_and_a_wide_one_is_not(capsys):
    assert shown(capsys, "table").splitlines()[0] == " ID  NAME"
    assert shown(capsys, "table").splitlines()[1].startswith(" ab  a,")
    assert shown(capsys, "wide").splitlines()[1].startswith(" abc  a,")
    assert shown(capsys, "wide").splitlines()[0].endswith("MORE")
    assert len(shown(capsys, "table", hide_header=True).splitlines()) == 2


def test_programs_get_everything(capsys):
    assert json.loads(shown(capsys, "json")) == ITEMS
    assert yaml.safe_load(shown(capsys, "yaml")) == ITEMS
    assert shown(capsys, "id") == "abc\ndef\n"
    rows = list(csv.reader(io.StringIO(shown(capsys, "csv"))))
    assert rows == [["ID", "NAME", "MORE"], ["abc", 'a,"b"', "m"], ["def", "c d", "m"]]


def test_one_thing_is_shown_whole_or_as_a_list_of_one(capsys):
    def one(output: str) -> str:
        print_item(ITEMS[0], output, COLUMNS, id_of=lambda item: item["id"])
        return capsys.readouterr().out

    assert yaml.safe_load(one("yaml")) == json.loads(one("json")) == ITEMS[0]
    assert one("id") == "abc\n"
    assert one("table").splitlines()[0] == " ID  NAME"


def test_an_empty_list_has_its_header(capsys):
    print_list([], COLUMNS, "table", id_of=str)
    print_list([], COLUMNS, "table", id_of=str, hide_header=True)
    assert capsys.readouterr().out == " ID  NAME\n"


ODD = [
    {"id": "\x7f\x1b[31m\u202e", "name": "é\U0001f600"},
    {"id": "\ud800 half", "name": ""},
    {},
    {"a": [], "b": {}, "c": [1.5, None, True, 10**30]},
]


@pytest.mark.parametrize("count", [0, 1, 3, 499, 500, 501, 1001])
@pytest.mark.parametrize("odd", ODD)
def test_a_list_of_any_length_is_the_same_json(capsys, count, odd):
    items = [{**odd, "number": number} for number in range(count)]
    print_list(iter(items), COLUMNS, "json", id_of=str)
    assert capsys.readouterr().out == json.dumps(items, indent=2) + "\n"


@pytest.mark.parametrize("count", [0, 1, 499, 500, 501, 1001])
def test_a_list_of_any_length_is_the_same_yaml(capsys, count):
    items = [{"id": f"{number:05}", "text": "a\n\n", "more": [{"a": ""}, []]} for number in range(count)]
    print_list(iter(items), COLUMNS, "yaml", id_of=str)
    assert capsys.readouterr().out == yaml_text(items)
    assert yaml.load(yaml_text(items), Loader=YamlLoader) == items


def test_every_line_of_a_long_list_is_printed(capsys):
    items = [{"id": f"{number:05}", "name": "\x1bn"} for number in range(1_201)]
    print_list(iter(items), COLUMNS, "id", id_of=lambda item: item["id"])
    assert capsys.readouterr().out.split() == [item["id"] for item in items]
    print_list(iter(items), COLUMNS, "csv", id_of=str)
    assert capsys.readouterr().out.splitlines()[1:] == [f"{item['id']},\ufffdn,m" for item in items]


@pytest.mark.parametrize(("output", "ids"), [("id", r"^(\w+)$"), ("yaml", r"^- id: '?(\w+)")])
def test_a_list_is_printed_while_more_is_on_its_way(capsys, output, ids):
    def printed() -> list[str]:
        return re.findall(ids, capsys.readouterr().out, re.MULTILINE)

    def items():
        for number in range(1_001):
            yield {"id": str(number), "name": ""}
        assert len(printed()) == 1_000
        yield {"id": "last", "name": ""}

    print_list(items(), COLUMNS, output, id_of=lambda item: item["id"])
    assert printed() == ["1000", "last"]


@pytest.mark.parametrize(
    ("cell", "shown_as"),
    [
        ('=HYPERLINK("http://x")', '\'=HYPERLINK("http://x")'),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\n+cmd|x", "' +cmd|x"),
        ("-1.5", "-1.5"),
        ("-", "-"),
        ("a=b", "a=b"),
    ],
)
def test_text_is_no_formula_in_a_spreadsheet(cell, shown_as):
    assert list(csv.reader([csv_row([cell, "next"])])) == [[shown_as, "next"]]
