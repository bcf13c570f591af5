"""The `Params` of the built-in sources, publishers and verifiers, and all built-in types by name.

A type that is not listed here may be a plug-in. Its parameters are passed on unchecked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from bacalhau_p2p.encoding.cids import binary_of_text, split_content_path
from bacalhau_p2p.errors import InvalidCID
from bacalhau_p2p.model.base import ClosedModel
from bacalhau_p2p.model.engine_params import DockerParams, NoopParams, WasmParams
from bacalhau_p2p.model.fields import MAX_COUNT, MAX_ENTRIES, AbsolutePath, Line, Name, Value
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.partition_keys import PartitionSpec


def _starts_with(*prefixes: str) -> AfterValidator:
    def check(url: str) -> str:
        if not url.lower().startswith(prefixes):
            raise ValueError(f"must start with {' or '.join(prefixes)}")
        return url

    return AfterValidator(check)


def _web_address(url: str) -> str:
    """Accepts a URL with a host and without credentials."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if not host or re.search(r"[\0-\x20\x7f\\]", url):
        raise ValueError("is not a URL")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not contain a user name or password: jobs are public")
    return url


def _content_path(text: str) -> str:
    """`CID` or `CID/path`, of `ipfs://CID/path` and `/ipfs/CID/path` too."""
    try:
        cid, names = split_content_path(text)
        binary_of_text(cid)
    except InvalidCID as error:
        raise ValueError(str(error)) from None
    return "/".join((cid, *names))


def _matching(pattern: str, problem: str) -> AfterValidator:
    def check(text: str) -> str:
        if text and not re.fullmatch(pattern, text):
            raise ValueError(problem)
        return text

    return AfterValidator(check)


class NoParams(ClosedModel):
    """For a type without parameters."""


class IpfsSource(ClosedModel):
    """`CID` is a file or folder, or `CID/path` something in a folder."""

    cid: Annotated[Value, AfterValidator(_content_path)] = Field(alias="CID")
    partition: PartitionSpec = PartitionSpec()


class InlineSource(ClosedModel):
    """The data itself, as a `data:` URL."""

    url: Annotated[str, _starts_with("data:")]


class LocalSource(ClosedModel):
    """A folder or file on the compute node. The node must allow it in its settings."""

    source_path: AbsolutePath
    read_write: bool = False
    create_as: Line = ""


class UrlSource(ClosedModel):
    """One file. If `SHA256` (in hex) is given, the content must match it."""

    url: Annotated[Value, _starts_with("http://", "https://"), AfterValidator(_web_address)]
    sha256: Annotated[Line, _matching(r"[0-9A-Fa-f]{64}", "must be 64 hexadecimal digits")] = Field(
        default="", alias="SHA256"
    )


_Region = Annotated[Line, _matching(r"[A-Za-z0-9-]{1,64}", "is not a region name")]
_Endpoint = Annotated[
    Value, _matching(r"https?://[^/\s@?#]+/?", "must be an http or https URL without a path")
]
_Bucket = Annotated[Name, _matching(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]{1,254}", "is not a bucket name")]


def _only_empty(value: Any) -> Any:
    if value:
        raise ValueError("is not supported; put the objects under one prefix and use it as Key")
    return value


class S3Source(ClosedModel):
    """An object; or all objects with a prefix, if `Key` ends in `/` or `*` or is empty."""

    bucket: _Bucket
    key: Value = ""
    filter: Annotated[Value, AfterValidator(_only_empty)] = ""
    region: _Region = ""
    endpoint: _Endpoint = ""
    version_id: Value = ""
    checksum_sha256: Annotated[
        Line,
        _matching(r"[0-9A-Fa-f]{64}|[0-9A-Za-z+/]{43}=", "must be a SHA-256 in base64 or hex"),
    ] = Field(default="", alias="ChecksumSHA256")
    partition: PartitionSpec = PartitionSpec()
    anonymous: bool = False

    @property
    def is_prefix(self) -> bool:
        return not self.key or self.key.endswith(("/", "*"))

    @property
    def is_fixed(self) -> bool:
        """Whether its content can never change."""
        return self.version_id not in ("", "null") or bool(self.checksum_sha256)

    @model_validator(mode="after")
    def _one_object(self) -> Self:
        if self.is_prefix and (self.version_id or self.checksum_sha256):
            raise ValueError("VersionID and ChecksumSHA256 require the Key of a single object")
        return self


class GitSource(ClosedModel):
    """`Ref` is a branch, a tag or a full commit id. If it is empty, the default branch is used."""

    url: Annotated[Value, _starts_with("http://", "https://"), AfterValidator(_web_address)]
    ref: Annotated[
        Line,
        _matching(r"(?!.*(\.\.|//|@\{|\.lock(/|$)))[\w][\w./+@=-]*(?<![./])", "is not a reference name"),
    ] = ""


class S3Publisher(ClosedModel):
    """`Key` is a prefix. `{jobID}`, `{executionID}`, `{date}` and `{time}` in it are replaced."""

    bucket: _Bucket
    key: Value
    endpoint: _Endpoint = ""
    region: _Region = ""
    encoding: Literal["", "plain", "gzip", "car"] = ""


_CHAINS = frozenset({"fanout", "fallback"})


def _no_nested_chain(publishers: tuple[SpecConfig, ...]) -> tuple[SpecConfig, ...]:
    if any(publisher.type in _CHAINS for publisher in publishers):
        raise ValueError("must not contain fanout or fallback")
    return publishers


class ChainParams(ClosedModel):
    """Several publishers: `fanout` uses all of them, `fallback` the first one that works."""

    publishers: Annotated[
        tuple[SpecConfig, ...], Field(min_length=1, max_length=8), AfterValidator(_no_nested_chain)
    ]


class DeterministicParams(ClosedModel):
    """`Confidence` is how many equal proposals are enough; 0 means a majority of at least two. `Entries` are
    the top-level entries of the results folder that must be equal; if there are none, all must be."""

    confidence: Annotated[int, Field(ge=0, le=MAX_COUNT)] = 0
    entries: Annotated[tuple[Name, ...], Field(max_length=MAX_ENTRIES)] = ()


ENGINES: Mapping[str, type[ClosedModel]] = {"docker": DockerParams, "wasm": WasmParams, "noop": NoopParams}
SOURCES: Mapping[str, type[ClosedModel]] = {
    "ipfs": IpfsSource,
    "inline": InlineSource,
    "localdirectory": LocalSource,
    "local": LocalSource,
    "url": UrlSource,
    "urldownload": UrlSource,
    "s3": S3Source,
    "git": GitSource,
}
PUBLISHERS: Mapping[str, type[ClosedModel]] = {
    "ipfs": NoParams,
    "local": NoParams,
    "noop": NoParams,
    "s3": S3Publisher,
    "pinning": NoParams,
    "lighthouse": NoParams,
    "estuary": NoParams,
    **dict.fromkeys(_CHAINS, ChainParams),
}
VERIFIERS: Mapping[str, type[ClosedModel]] = {"noop": NoParams, "deterministic": DeterministicParams}

KNOWN_PARAMS: Mapping[str, Mapping[str, type[ClosedModel]]] = {
    "Engine": ENGINES,
    "Source": SOURCES,
    "Publisher": PUBLISHERS,
    "Publishers": PUBLISHERS,
    "Verifier": VERIFIERS,
}
"""The parameters of the built-in types, by the key of the choice and the type in lower case."""
