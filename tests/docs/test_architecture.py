"""`docs/architecture.md` names files that exist, and every room of the package."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "bacalhau_p2p"
PAGE = (ROOT / "docs" / "architecture.md").read_text()


def test_every_file_and_folder_that_the_page_names_exists():
    named = set(re.findall(r"`((?:[a-z0-9_]+/)+(?:[a-z0-9_]+\.py)?)`", PAGE))
    assert len(named) > 50
    assert sorted(path for path in named if not any((base / path).exists() for base in (PACKAGE, ROOT))) == []


def test_every_room_is_on_the_page():
    rooms = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())
    assert [room for room in rooms if f"`{room}/`" not in PAGE] == []
