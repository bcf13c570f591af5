"""What flags such as `-i SRC,dst=DST,opt=K=V` and `-p s3://BUCKET/KEY,opt=K=V` say, part by part."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import click

_NEXT = re.compile(r",(?=[A-Za-z_]+=)")
_SOURCES = frozenset({"src", "source"})
_TARGETS = frozenset({"dst", "dest", "destination", "target"})
_OPTIONS = frozenset({"opt", "option"})

_PARTITION = {
    "partition": "Partition.Type",
    "pattern": "Partition.Pattern",
    "startindex": "Partition.StartIndex",
    "endindex": "Partition.EndIndex",
    "dateformat": "Partition.DateFormat",
    "index": "Partition.Index",
    "count": "Partition.Count",
}
"""How an input is divided, by the names that a job file has for it."""
_PARAMS: dict[str, dict[str, str]] = {
    "ipfs": _PARTITION,
    "s3": {
        **_PARTITION,
        "region": "Region",
        "endpoint": "Endpoint",
        "versionid": "VersionID",
        "checksum": "ChecksumSHA256",
        "checksumsha256": "ChecksumSHA256",
        "filter": "Filter",
        "anonymous": "Anonymous",
    },
    "urlDownload": {"sha256": "SHA256"},
    "localDirectory": {"rw": "ReadWrite", "readwrite": "ReadWrite"},
}
_PARTITION_TYPES = ("object", "regex", "substring", "date")
_WRITTEN = {"startindex": "start-index", "endindex": "end-index", "dateformat": "date-format"}
"""How names of two words are written; they are read with a hyphen, an underline or neither."""
_PUBLISHER_PARAMS = {"region": "Region", "endpoint": "Endpoint", "encoding": "Encoding"}
_FLAGS = frozenset({"ReadWrite", "Anonymous"})
"""Parameters that are true or false."""
_NUMBERS = frozenset({"StartIndex", "EndIndex", "Index", "Count"})
"""Parts of a parameter that are whole numbers."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a flag."""

    source: str
    target: str = ""
    options: dict[str, str] = field(default_factory=dict)


def split_parts(text: str) -> Parts:
    """The parts of `SRC,dst=DST,opt=K=V`, in any order. Raises click's usage error for any other part."""
    source, target, options = "", "", dict[str, str]()
    for number, part in enumerate(_NEXT.split(text)):
        name, equals, value = part.partition("=")
        if number == 0 and (not equals or name not in _SOURCES | _TARGETS | _OPTIONS):
            source = part
        elif name in _SOURCES and not source:
            source = value
        elif name in _TARGETS and not target:
            target = value
        elif name in _OPTIONS:
            option, _, setting = value.partition("=")
            options[option] = setting
        else:
            raise click.UsageError(
                f"{text!r}: {name}= is not known; use src=, dst= or opt=NAME=VALUE,"
                " and write %2C for a comma in a URL"
            )
    return Parts(source, target, options)


def source_params(kind: str, options: dict[str, str], text: str) -> dict[str, Any]:
    """The parameters of a source that options set. Raises click's usage error for an unknown one."""
    params = _params(_PARAMS.get(kind, {}), options, text)
    if "Type" not in params.get("Partition", {"Type": ""}):
        raise click.UsageError(f"{text!r}: say how the input is divided, such as opt=partition=object")
    return params


def completions(incomplete: str) -> list[str]:
    """Whole values that the beginning of an `--input` flag may become, by its last part."""
    given, _, last = incomplete.rpartition(",")
    scheme = _NEXT.split(given)[0].removeprefix("src=").partition("://")[0].lower()
    kind = "s3" if scheme == "s3" else "ipfs"
    names = [_WRITTEN.get(name, name) for name in _PARAMS[kind]]
    parts = ["dst=/", *(f"opt={name}=" for name in names)]
    parts += [f"opt=partition={each}" for each in _PARTITION_TYPES]
    return [f"{given},{part}" for part in parts if part.startswith(last)]


def parse_publisher(text: str) -> dict[str, object]:
    """`TYPE`, `ipfs://` or `s3://BUCKET/KEY`, with `,opt=NAME=VALUE`. Raises click's usage error."""
    parts = split_parts(text)
    if parts.target:
        raise click.UsageError(f"publisher {text!r}: dst= has no meaning here")
    scheme, separator, rest = parts.source.partition("://")
    if scheme.lower() == "s3" and separator:
        bucket, _, key = rest.partition("/")
        options = _params(_PUBLISHER_PARAMS, parts.options, text)
        return {"Type": "s3", "Params": {"Bucket": bucket, "Key": key, **options}}
    if rest:
        raise click.UsageError(f"publisher {text!r}: use a type, or s3://BUCKET/KEY")
    _params({}, parts.options, text)
    return {"Type": scheme}


def _params(known: dict[str, str], options: dict[str, str], text: str) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for option, value in options.items():
        name = known.get(option.lower().replace("-", "").replace("_", ""))
        if name is None:
            choice = (
                f"use {', '.join(sorted(_WRITTEN.get(each, each) for each in known))}"
                if known
                else "it takes none"
            )
            raise click.UsageError(f"{text!r}: unknown option {option!r}; {choice}")
        outer, dot, inner = name.partition(".")
        if dot:
            params.setdefault(outer, {})[inner] = _number(value, text) if inner in _NUMBERS else value
        else:
            params[name] = _truth(value, text) if name in _FLAGS else value
    return params


def _number(value: str, text: str) -> int:
    if not value.isdecimal():
        raise click.UsageError(f"{text!r}: {value!r} is not a whole number")
    return int(value)


def _truth(value: str, text: str) -> bool:
    if value.lower() not in ("", "true", "false", "1", "0"):
        raise click.UsageError(f"{text!r}: {value!r} is neither true nor false")
    return value.lower() not in ("false", "0")
