"""`serve` of a node that proposes the entries of its result together with the CID of a folder of lies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bacalhau_p2p.cli import main
from bacalhau_p2p.ipfs.content.content import Content
from bacalhau_p2p.ipfs.files.importer import Added

_ADD = Content.add


async def add_and_lie(self: Content, path: Path, *, pin_owner: str, **options: object) -> Added:
    honest = await _ADD(self, path, pin_owner=pin_owner)
    (path / "stdout").write_bytes(b"lie\n")
    lie = await _ADD(self, path, pin_owner=pin_owner)
    return replace(lie, entries=honest.entries)


Content.add = add_and_lie  # type: ignore[method-assign]
main()
