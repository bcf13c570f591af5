from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_test_that_the_transport_page_names_exists():
    named = set(re.findall(r"`((?:test|check)_\w+)`", (ROOT / "docs" / "transport.md").read_text()))
    checks = ROOT / "bacalhau_p2p" / "testing" / "transports"
    sources = [*(ROOT / "tests").rglob("*.py"), *checks.glob("*.py")]
    defined = {
        name for source in sources for name in re.findall(r"def ((?:test|check)_\w+)", source.read_text())
    }
    assert len(named) > 30
    assert named - defined == set()


def test_every_still_needed_test_is_on_the_transport_page():
    page = (ROOT / "docs" / "transport.md").read_text()
    for source in (ROOT / "tests" / "transports").rglob("test_*.py"):
        for name in re.findall(r"def (test_\w+still_needed)\(", source.read_text()):
            assert name in page
