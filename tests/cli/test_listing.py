"""Lists in every format."""

from __future__ import annotations

import csv
import io
import json

import pytest
import yaml

from bacalhau_p2p.cli.listing import print_item, print_list
from bacalhau_p2p.cli.table import Column

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
