"""Pulls one image. Why that failed is not said in the engine's words, which quote what a server answered."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import trio

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.model.image_names import ImageName
from bacalhau_p2p.model.quantities import format_bytes
from bacalhau_p2p.runtime.logs import get_logger

if TYPE_CHECKING:
    from docker import APIClient

log = get_logger(__name__)

MAX_IMAGE = 16 * 1000**3
"""Bytes of all layers of an image, compressed."""
MAX_LAYERS = 512
_LOGGED = 500
"""Characters of the engine's words that are logged."""

_FAILURES = (
    # what the engine says, what the requester gets, whether every node would fail
    (re.compile(r"no space left|disk quota exceeded"), "the disk of this node is full", False),
    (re.compile(r"toomanyrequests|too many requests|rate limit", re.I), "the registry limits pulls", False),
    (
        re.compile(r"no matching manifest|does not match the specified platform"),
        "not for this platform",
        False,
    ),
    (re.compile(r"\blookup\b|no such host|dial tcp"), "registry unreachable", False),
    (re.compile(r"manifest unknown|name unknown|does not exist|not found", re.I), "not found", True),
    (re.compile(r"denied|unauthorized|forbidden|no basic auth", re.I), "access denied", True),
)
_UNREACHABLE = "registry unreachable"


def pull(client: APIClient, name: ImageName) -> None:
    """Pull an image. Blocks; for a worker thread of trio. Raises ExecutorError."""
    from docker.errors import APIError

    try:
        # With a digest the SDK wants it as the tag.
        lines = client.pull(name.repository, tag=name.reference, stream=True, decode=True)
        _follow(name, lines)
    except APIError as error:
        raise pull_failed(name, str(error.explanation or error)) from None


def _follow(name: ImageName, lines: Iterable[Mapping[str, Any]]) -> None:
    layers: dict[str, int] = {}
    for line in lines:
        trio.from_thread.check_cancelled()
        if "error" in line:
            raise pull_failed(name, str(line["error"]))
        total = (line.get("progressDetail") or {}).get("total")
        if isinstance(total, int) and line.get("status") == "Downloading":
            layers[str(line.get("id"))] = total
        if len(layers) > MAX_LAYERS or sum(layers.values()) > MAX_IMAGE:
            raise ExecutorError(f"image {name}: larger than {format_bytes(MAX_IMAGE)}", permanent=True)


def pull_failed(name: ImageName, words: str) -> ExecutorError:
    """The class of a failure. The engine's words, which may quote what is secret, go to this node's log."""
    log.warning("image_not_pulled", image=str(name), reason=words.strip()[:_LOGGED])
    for pattern, what, permanent in _FAILURES:
        if pattern.search(words):
            return ExecutorError(f"image {name}: {what}", permanent=permanent)
    return ExecutorError(f"image {name}: {_UNREACHABLE}")
