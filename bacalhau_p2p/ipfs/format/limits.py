"""How large content may be: checked before it is fetched and again on every step through it.

A DAG is cheap to make and expensive to follow: five blocks of 13 kB can expand to 13 GB, and a chain of
blocks can nest without end. Every walk through a DAG counts as it goes and calls these checks.
"""

from __future__ import annotations

from dataclasses import dataclass

from bacalhau_p2p.errors import ContentTooLarge, InvalidContent

MAX_BLOCK = 2 * 1024 * 1024
"""Bytes of one block, as in every IPFS implementation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The largest DAG that is accepted."""

    bytes: int = 64 * 1024**3
    """Bytes of all files as written out, repeated ones counted each time."""
    blocks: int = 2_000_000
    entries: int = 1_000_000
    """Files, folders and symlinks as written out, repeated ones counted each time."""
    folder_depth: int = 64
    file_depth: int = 8
    """Levels of blocks below the root of one file: 8 hold more than any disk at 174 links a block."""
    name: int = 255
    """Bytes of one name in UTF-8: what file systems accept."""
    path: int = 4096
    """Bytes of one path in UTF-8, from the root, slashes included."""

    def check_bytes(self, size: int, what: str = "the content") -> None:
        """Raises ContentTooLarge. `size` may be a running total."""
        if size > self.bytes:
            error = ContentTooLarge(f"{what} has at least {size} bytes; the limit is {self.bytes}")
            error.size = size
            raise error

    def check_transfer(self, received: int) -> None:
        """Raises ContentTooLarge when a stream brought more bytes of blocks than any accepted DAG has.

        Blocks with links come on top of the content: a small part of it, and some hundred bytes an entry.
        """
        if received > self.bytes + self.bytes // 8 + self.entries * 512:
            error = ContentTooLarge(f"the content has more than {self.bytes} bytes")
            error.size = self.bytes + 1
            raise error

    def check_entries(self, count: int) -> None:
        """Raises ContentTooLarge."""
        if count > self.entries:
            raise ContentTooLarge(f"the content has more than {self.entries} entries")

    def check_blocks(self, count: int) -> None:
        """Raises ContentTooLarge. `count` may include blocks that are linked to but not here yet."""
        if count > self.blocks:
            raise ContentTooLarge(f"the content has more than {self.blocks} blocks")

    def check_folder_depth(self, depth: int) -> None:
        """Raises InvalidContent."""
        if depth > self.folder_depth:
            raise InvalidContent(f"folders are nested more than {self.folder_depth} levels deep")

    def check_file_depth(self, depth: int) -> None:
        """Raises InvalidContent."""
        if depth > self.file_depth:
            raise InvalidContent(f"a file has more than {self.file_depth} levels of blocks")

    def check_path(self, length: int) -> None:
        """Raises InvalidContent."""
        if length > self.path:
            raise InvalidContent(f"a path has more than {self.path} bytes")


DEFAULT_LIMITS = Limits()
