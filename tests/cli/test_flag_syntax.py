"""The parts of inputs and publishers."""

from __future__ import annotations

import click
import pytest

from bacalhau_p2p.cli.flag_syntax import Parts, completions, parse_publisher, source_params, split_parts


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("s3://b/k", Parts("s3://b/k")),
        ("https://x/?a=1&b=2", Parts("https://x/?a=1&b=2")),
        ("a,b", Parts("a,b")),
        ("src=a,dst=/b", Parts("a", "/b")),
        ("dst=/b,source=a", Parts("a", "/b")),
        ("a,target=/b,opt=x=1,opt=y=a=b", Parts("a", "/b", {"x": "1", "y": "a=b"})),
        ("a=b", Parts("a=b")),
    ],
)
def test_parts_are_told_apart_by_their_names(text, parts):
    assert split_parts(text) == parts


@pytest.mark.parametrize("text", ["a,to=/b", "a,src=b", "a,dst=/b,dst=/c", "https://x/?q=1,b=2"])
def test_an_unknown_part_is_never_part_of_a_path(text):
    with pytest.raises(click.UsageError, match="is not known"):
        split_parts(text)


def test_options_are_parameters_of_the_source():
    options = {"region": "eu", "version-id": "7", "anonymous": "true"}
    expected = {"Region": "eu", "VersionID": "7", "Anonymous": True}
    assert source_params("s3", options, "x") == expected
    assert source_params("localDirectory", {"rw": ""}, "x") == {"ReadWrite": True}
    assert source_params("localDirectory", {"rw": "false"}, "x") == {"ReadWrite": False}


def test_an_input_is_divided_by_options_with_the_names_of_a_job_file():
    partition = {"Type": "substring", "StartIndex": 2, "EndIndex": 4}
    options = {"partition": "substring", "start-index": "2", "endindex": "4"}
    assert source_params("ipfs", options, "x") == {"Partition": partition}
    options = {"partition": "date", "date-format": "2006-01", "region": "eu"}
    expected = {"Partition": {"Type": "date", "DateFormat": "2006-01"}, "Region": "eu"}
    assert source_params("s3", options, "x") == expected
    text = "a,opt=partition=regex,opt=pattern=^[a-z]{1,3}=(x|y)"
    pattern = {"Type": "regex", "Pattern": "^[a-z]{1,3}=(x|y)"}
    assert source_params("ipfs", split_parts(text).options, text) == {"Partition": pattern}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"pattern": "a"}, "such as opt=partition=object"),
        ({"partition": "substring", "end-index": "many"}, "'many' is not a whole number"),
    ],
)
def test_an_incomplete_partition_is_a_usage_error(options, problem):
    with pytest.raises(click.UsageError, match=problem):
        source_params("ipfs", options, "x")


def test_the_options_of_an_input_are_completed():
    assert completions("data:/inputs,opt=partition=o") == ["data:/inputs,opt=partition=object"]
    assert "data:/inputs,opt=date-format=" in completions("data:/inputs,")
    assert completions("data,opt=reg") == []
    assert completions("src=s3://b/k,opt=reg") == ["src=s3://b/k,opt=region="]


@pytest.mark.parametrize(
    ("kind", "options"), [("s3", {"zone": "eu"}), ("ipfs", {"region": "eu"}), ("localDirectory", {"rw": "7"})]
)
def test_an_unknown_option_is_an_error(kind, options):
    with pytest.raises(click.UsageError):
        source_params(kind, options, "x")


def test_a_publisher_is_a_type_or_a_place_in_s3():
    assert parse_publisher("ipfs") == parse_publisher("ipfs://") == {"Type": "ipfs"}
    s3 = {"Bucket": "b", "Key": "k/x", "Region": "eu", "Endpoint": "http://x"}
    assert parse_publisher("s3://b/k/x,opt=region=eu,opt=endpoint=http://x") == {"Type": "s3", "Params": s3}


@pytest.mark.parametrize("text", ["ipfs://bafy", "s3://b/k,dst=/x", "ipfs,opt=region=x", "s3://b/k,opt=x=1"])
def test_another_publisher_is_an_error(text):
    with pytest.raises(click.UsageError):
        parse_publisher(text)
