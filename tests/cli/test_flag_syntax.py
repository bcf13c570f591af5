"""The parts of inputs and publishers."""

from __future__ import annotations

import click
import pytest

from bacalhau_p2p.cli.flag_syntax import Parts, parse_publisher, source_params, split_parts


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
