"""Import profiles: the choices that decide which CID given bytes get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How files are chunked and folders sharded."""

    name: str = "default"
    chunk: int = 256 * 1024
    """Bytes of one leaf."""
    links: int = 174
    """Links of one block of a file."""
    shard_above: int = 256 * 1024
    """A folder is sharded when it has more bytes than this."""
    shard_by: Literal["links", "block"] = "links"
    """Which bytes of a folder count: its names and binary CIDs, or all of its block."""


DEFAULT_PROFILE = Profile()
"""That of a bare `ipfs add --cid-version=1`."""

UNIXFS_V1_2025 = Profile(name="unixfs-v1-2025", chunk=1024 * 1024, links=1024, shard_by="block")
"""That of IPIP-0499, which newer IPFS tools offer under this name."""

PROFILES = {profile.name: profile for profile in (DEFAULT_PROFILE, UNIXFS_V1_2025)}
