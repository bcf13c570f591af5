"""Parses the names of container images: `busybox`, `ghcr.io/owner/name:1.2`, `name@sha256:...`.

The grammar is that of registries. A name that does not follow it could be read in another way by an engine,
which puts it into the path of a request.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

MAX_IMAGE_NAME = 256
"""Characters of a whole name."""
DEFAULT_REGISTRY = "docker.io"
"""Where images without a registry in their name come from."""

_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]{{2,45}}\])(?::[0-9]{{1,5}})?")
_PART = re.compile(r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ImageName:
    """An image: its registry (`host` or `host:port`), its path there, and a tag or a digest."""

    registry: str
    path: str
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError. Without tag and digest it is `latest`."""
        if len(text) > MAX_IMAGE_NAME:
            raise ValueError(f"must have at most {MAX_IMAGE_NAME} characters")
        name, at, digest = text.partition("@")
        registry, slash, path = name.partition("/")
        if not slash or not (set(registry) & set(".:[") or registry == "localhost"):
            registry, path = DEFAULT_REGISTRY, name
        path, colon, tag = path.partition(":")
        registry = registry.lower()
        if registry in (DEFAULT_REGISTRY, "index.docker.io"):
            registry, path = DEFAULT_REGISTRY, path if "/" in path else f"library/{path}"
        if (
            not is_registry(registry)
            or not all(_PART.fullmatch(part) for part in path.split("/"))
            or (colon and not _TAG.fullmatch(tag))
            or (at and not _DIGEST.fullmatch(digest))
        ):
            raise ValueError(f"{text!r} is not an image name, such as busybox:1.36 or ghcr.io/owner/name")
        return cls(registry, path, tag or ("" if at else "latest"), digest)

    @property
    def repository(self) -> str:
        """Registry and path."""
        return f"{self.registry}/{self.path}"

    @property
    def reference(self) -> str:
        """The tag, or the digest if there is one, which then decides."""
        return self.digest or self.tag

    def __str__(self) -> str:
        """The whole name, as every engine reads it."""
        return f"{self.repository}@{self.digest}" if self.digest else f"{self.repository}:{self.tag}"


def is_registry(text: str) -> bool:
    """Whether this is the host of a registry, perhaps with a port."""
    return len(text) <= MAX_IMAGE_NAME and _HOST.fullmatch(text) is not None


def image_name(text: str) -> str:
    """The text itself, when it names an image. Raises ValueError."""
    ImageName.parse(text)
    return text
