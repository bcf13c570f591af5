"""What the parts that we know by name can be told in their `Params`.

A type that is not listed here may be a plug-in: its parameters are passed on as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from bacalhau_p2p.model.base import Model
from bacalhau_p2p.model.engine_params import DockerParams, NoopParams, WasmParams
from bacalhau_p2p.model.fields import MAX_COUNT, MAX_ENTRIES, AbsolutePath, Line, Name, Value
from bacalhau_p2p.model.job import SpecConfig


def _starts_with(*prefixes: str) -> AfterValidator:
    def check(url: str) -> str:
        if not url.lower().startswith(prefixes):
            raise ValueError(f"must begin with {' or '.join(prefixes)}")
        return url

    return AfterValidator(check)


def _web_address(url: str) -> str:
    """A URL with a host and without a password: jobs are read by everybody."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if not host or re.search(r"[\0-\x20\x7f\\]", url):
        raise ValueError("is not a URL")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user name or password: everybody can read a job")
    return url


def _matching(pattern: str, problem: str) -> AfterValidator:
    def check(text: str) -> str:
        if text and not re.fullmatch(pattern, text):
            raise ValueError(problem)
        return text

    return AfterValidator(check)


class NoParams(Model):
    """There is nothing to be told."""


class IpfsSource(Model):
    cid: Name = Field(alias="CID")


class InlineSource(Model):
    """The data itself, as a `data:` URL."""

    url: Annotated[str, _starts_with("data:")]


class LocalSource(Model):
    """A folder or file of the compute node itself; only from its allow-list."""

    source_path: AbsolutePath
    read_write: bool = False
    create_as: Line = ""


class UrlSource(Model):
    """One file; with `SHA256` (in hex) exactly that one."""

    url: Annotated[Value, _starts_with("http://", "https://"), AfterValidator(_web_address)]
    sha256: Annotated[Line, _matching(r"[0-9A-Fa-f]{64}", "must be 64 hexadecimal digits")] = Field(
        default="", alias="SHA256"
    )


_Region = Annotated[Line, _matching(r"[A-Za-z0-9-]{1,64}", "is not a region")]
_Endpoint = Annotated[
    Value, _matching(r"https?://[^/\s@?#]+/?", "must be http:// or https://, a host and no path")
]
_Bucket = Annotated[
    Name, _matching(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]{1,254}", "is not the name of a bucket")
]


def _only_empty(value: Any) -> Any:
    if value:
        raise ValueError("is not supported: put what you want under a prefix, and name that in Key")
    return value


class S3Source(Model):
    """An object, or all objects whose keys begin so when `Key` ends in `/` or `*` or is empty."""

    bucket: _Bucket
    key: Value = ""
    filter: Annotated[Value, AfterValidator(_only_empty)] = ""
    region: _Region = ""
    endpoint: _Endpoint = ""
    version_id: Value = ""
    checksum_sha256: Annotated[
        Line,
        _matching(
            r"[0-9A-Fa-f]{64}|[0-9A-Za-z+/]{43}=", "must be a SHA-256 in base64, as S3 has it, or in hex"
        ),
    ] = Field(default="", alias="ChecksumSHA256")
    partition: Annotated[Mapping[str, Any], AfterValidator(_only_empty)] = Field(default_factory=dict)
    anonymous: bool = False

    @property
    def is_prefix(self) -> bool:
        return not self.key or self.key.endswith(("/", "*"))

    @property
    def is_fixed(self) -> bool:
        """Whether it can never be other content."""
        return self.version_id not in ("", "null") or bool(self.checksum_sha256)

    @model_validator(mode="after")
    def _one_object(self) -> Self:
        if self.is_prefix and (self.version_id or self.checksum_sha256):
            raise ValueError("VersionID and ChecksumSHA256 need a Key that is one object")
        return self


class GitSource(Model):
    """`Ref` is a branch, a tag or a whole commit id; the default branch when it is empty."""

    url: Annotated[Value, _starts_with("http://", "https://"), AfterValidator(_web_address)]
    ref: Annotated[
        Line,
        _matching(
            r"(?!.*(\.\.|//|@\{|\.lock(/|$)))[\w][\w./+@=-]*(?<![./])", "is not the name of a reference"
        ),
    ] = ""


class S3Publisher(Model):
    """`Key` is a prefix, in which `{jobID}`, `{executionID}`, `{date}` and `{time}` are replaced."""

    bucket: _Bucket
    key: Value
    endpoint: _Endpoint = ""
    region: _Region = ""
    encoding: Literal["", "plain", "gzip", "car"] = ""


_CHAINS = frozenset({"fanout", "fallback"})


def _no_chain(links: tuple[SpecConfig, ...]) -> tuple[SpecConfig, ...]:
    if any(link.type in _CHAINS for link in links):
        raise ValueError("must not hold another chain")
    return links


class ChainParams(Model):
    """Several publishers: `fanout` needs all of them, `fallback` the first that works."""

    publishers: Annotated[
        tuple[SpecConfig, ...], Field(min_length=1, max_length=8), AfterValidator(_no_chain)
    ]


class DeterministicParams(Model):
    """How many equal proposals are enough (0: a majority of at least two), and which top-level
    entries of the results folder must be equal (none given: all)."""

    confidence: Annotated[int, Field(ge=0, le=MAX_COUNT)] = 0
    entries: Annotated[tuple[Name, ...], Field(max_length=MAX_ENTRIES)] = ()


ENGINES: Mapping[str, type[Model]] = {"docker": DockerParams, "wasm": WasmParams, "noop": NoopParams}
SOURCES: Mapping[str, type[Model]] = {
    "ipfs": IpfsSource,
    "inline": InlineSource,
    "localdirectory": LocalSource,
    "local": LocalSource,
    "url": UrlSource,
    "urldownload": UrlSource,
    "s3": S3Source,
    "git": GitSource,
}
PUBLISHERS: Mapping[str, type[Model]] = {
    "ipfs": NoParams,
    "local": NoParams,
    "noop": NoParams,
    "s3": S3Publisher,
    "pinning": NoParams,
    "lighthouse": NoParams,
    "estuary": NoParams,
    **dict.fromkeys(_CHAINS, ChainParams),
}
VERIFIERS: Mapping[str, type[Model]] = {"noop": NoParams, "deterministic": DeterministicParams}

KNOWN_PARAMS: Mapping[str, Mapping[str, type[Model]]] = {
    "Engine": ENGINES,
    "Source": SOURCES,
    "Publisher": PUBLISHERS,
    "Publishers": PUBLISHERS,
    "Verifier": VERIFIERS,
}
"""By the field that makes the choice, then by its type in lower case."""
