"""An export in a process that tests can kill: export_process.py TARGET EXISTING.

Before each block and after each rename it prints the name of that step, and waits for a line on stdin.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bacalhau_p2p.ipfs.files.export import export
from bacalhau_p2p.ipfs.format.cid import CID
from tests.support.blocks.dag_makers import MemoryBlocks

CONTENT = {"a": b"new a", "b": b"new b"}


def content(blocks: MemoryBlocks) -> CID:
    """The folder that is exported."""
    return blocks.folder([(name.encode(), blocks.raw(data)) for name, data in CONTENT.items()])


def step(name: str) -> None:
    os.write(1, f"{name}\n".encode())
    if not sys.stdin.readline():
        sys.exit(1)


def main() -> None:
    _, target, existing = sys.argv
    rename, blocks = os.rename, MemoryBlocks()

    def rename_and_step(source: str, name: str, **folders: int) -> None:
        rename(source, name, **folders)
        step("renamed")

    os.rename = rename_and_step  # type: ignore[assignment]
    export(
        content(blocks),
        Path(target),
        blocks,
        existing=existing,  # type: ignore[arg-type]
        checkpoint=lambda: step("block"),
    )


if __name__ == "__main__":
    main()
