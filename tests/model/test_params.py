"""Which parameters the built-in types accept, and what is wrong with the others: `params`, `validation`."""

from __future__ import annotations

import pytest

from bacalhau_p2p.errors import InvalidJob
from bacalhau_p2p.model.base import Model
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.params import PUBLISHERS, SOURCES, VERIFIERS, S3Source
from bacalhau_p2p.model.validation import read_params

RELATIVE = "must be an absolute path, which begins with /, not 'data'"
HEX = "ab" * 32
BASE64 = "A" * 43 + "="


def problems(model: type[Model], params: dict[str, object]) -> list[str]:
    try:
        read_params(model, SpecConfig(type="x", params=params))
    except InvalidJob as error:
        return [str(fault) for fault in error.faults]
    return []


@pytest.mark.parametrize(
    ("source", "params"),
    [
        ("ipfs", {"CID": "bafkqaaa"}),
        ("ipfs", {"CID": "bafkqaaa/a/b.txt"}),
        ("ipfs", {"CID": "ipfs://bafkqaaa/a/"}),
        ("inline", {"URL": "data:,x"}),
        ("local", {"SourcePath": "/data", "ReadWrite": True}),
        ("url", {"URL": "https://example.org/a", "SHA256": HEX}),
        ("urldownload", {"URL": "HTTP://example.org:8080/a?b=c"}),
        ("s3", {"Bucket": "data", "Key": "a/b", "ChecksumSHA256": BASE64, "VersionID": "1"}),
        ("s3", {"Bucket": "data", "Key": "a/", "Region": "eu-west-1", "Endpoint": "http://minio:9000"}),
        ("git", {"URL": "https://example.org/r.git", "Ref": "release/v1.0"}),
        ("git", {"URL": "https://example.org/r.git", "Ref": "0123abcd"}),
    ],
)
def test_a_source_accepts_its_parameters(source, params):
    assert problems(SOURCES[source], params) == []


@pytest.mark.parametrize(
    ("source", "params", "found"),
    [
        ("ipfs", {"CID": ""}, ["Params.CID: a CID is missing"]),
        ("ipfs", {"CID": "ipfs://notacid"}, ["Params.CID: 'notacid' is not a CID"]),
        ("ipfs", {"CID": "bafy/sub"}, ["Params.CID: 'bafy' is not a CID"]),
        (
            "ipfs",
            {"CID": "bafkqaaa/.."},
            ["Params.CID: invalid path in 'bafkqaaa/..': names cannot be '.' or '..' or contain NUL"],
        ),
        (
            "inline",
            {"URL": "https://example.org"},
            ["Params.URL: must start with data:, not 'https://example.org'"],
        ),
        (
            "local",
            {"SourcePath": "data"},
            [f"Params.SourcePath: {RELATIVE}"],
        ),
        ("url", {"URL": "ftp://a"}, ["Params.URL: must start with http:// or https://, not 'ftp://a'"]),
        ("url", {"URL": "https:///a"}, ["Params.URL: 'https:///a' is not a URL"]),
        ("url", {"URL": "https://a.org:port/"}, ["Params.URL: 'https://a.org:port/' is not a URL"]),
        ("url", {"URL": "https://a.org/a b"}, ["Params.URL: 'https://a.org/a b' is not a URL"]),
        (
            "url",
            {"URL": "https://me:secret@example.org/"},
            ["Params.URL: must not contain a user name or password: jobs are public"],
        ),
        (
            "url",
            {"URL": "https://example.org/", "SHA256": "ab"},
            ["Params.SHA256: must be 64 hexadecimal digits, not 'ab'"],
        ),
        ("s3", {"Bucket": "a..b"}, ["Params.Bucket: 'a..b' is not a bucket name"]),
        ("s3", {"Bucket": "data", "Region": "eu west"}, ["Params.Region: 'eu west' is not a region name"]),
        (
            "s3",
            {"Bucket": "data", "Endpoint": "minio:9000/path"},
            ["Params.Endpoint: must be an http or https URL without a path, not 'minio:9000/path'"],
        ),
        (
            "s3",
            {"Bucket": "data", "Key": "a", "ChecksumSHA256": "x"},
            ["Params.ChecksumSHA256: must be a SHA-256 in base64 or hex, not 'x'"],
        ),
        (
            "s3",
            {"Bucket": "data", "Key": "a/*", "VersionID": "1"},
            ["Params: VersionID and ChecksumSHA256 require the Key of a single object"],
        ),
        (
            "s3",
            {"Bucket": "data", "Filter": "x.*"},
            ["Params.Filter: is not supported; put the objects under one prefix and use it as Key"],
        ),
        (
            "git",
            {"URL": "https://example.org/r.git", "Ref": "../x"},
            ["Params.Ref: '../x' is not a reference name"],
        ),
        (
            "git",
            {"URL": "https://example.org/r.git", "Ref": "--upload-pack=x"},
            ["Params.Ref: '--upload-pack=x' is not a reference name"],
        ),
    ],
)
def test_a_source_rejects_other_parameters(source, params, found):
    assert problems(SOURCES[source], params) == found


@pytest.mark.parametrize(
    ("key", "prefix"), [("", True), ("a/", True), ("a*", True), ("a", False), ("a/b", False)]
)
def test_an_s3_key_is_a_prefix_if_it_is_empty_or_ends_in_a_slash_or_star(key, prefix):
    assert S3Source(bucket="data", key=key).is_prefix is prefix


@pytest.mark.parametrize(
    ("more", "fixed"),
    [
        ({}, False),
        ({"version_id": "null"}, False),
        ({"version_id": "1"}, True),
        ({"checksum_sha256": HEX}, True),
    ],
)
def test_an_s3_object_with_a_version_or_checksum_never_changes(more, fixed):
    assert S3Source(bucket="data", key="a", **more).is_fixed is fixed


def test_a_chain_of_publishers_needs_some_and_no_other_chain():
    assert problems(PUBLISHERS["fanout"], {"Publishers": [{"Type": "ipfs"}, {"Type": "local"}]}) == []
    assert problems(PUBLISHERS["fallback"], {}) == ["Params.Publishers: missing"]
    assert problems(PUBLISHERS["fanout"], {"Publishers": [{"Type": "Fallback"}]}) == [
        "Params.Publishers: must not contain fanout or fallback"
    ]


@pytest.mark.parametrize("publisher", ["ipfs", "local", "noop", "pinning", "lighthouse", "estuary"])
def test_most_publishers_have_no_parameters(publisher):
    assert problems(PUBLISHERS[publisher], {}) == []
    assert problems(PUBLISHERS[publisher], {"Key": "x"}) == ["Params.Key: unknown key"]


def test_the_deterministic_verifier_checks_its_confidence():
    assert problems(VERIFIERS["deterministic"], {"Confidence": 2, "Entries": ["stdout"]}) == []
    assert problems(VERIFIERS["deterministic"], {"Confidence": 1001}) == [
        "Params.Confidence: must be at most 1000, not 1001"
    ]
