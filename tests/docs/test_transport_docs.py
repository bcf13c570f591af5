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


def test_every_module_of_the_transport_is_on_its_page():
    page = (ROOT / "docs" / "transport.md").read_text()
    room = ROOT / "bacalhau_p2p" / "transports" / "libp2p"
    modules = {str(path.relative_to(room)) for path in room.rglob("*.py") if path.name != "__init__.py"}
    assert {name for name in modules if f"`{name}`" not in page} == set()


def test_every_name_on_the_transport_page_is_in_the_code():
    page = (ROOT / "docs" / "transport.md").read_text()
    room = ROOT / "bacalhau_p2p" / "transports"
    code = "".join(path.read_text() for path in room.rglob("*.py"))
    of_tests = r"(?:test|check)_\w+|is_still_needed"
    named = set(re.findall(rf"`(?!{of_tests})(?:[A-Z]\w+\.)?(_?[A-Za-z]\w+)`", page))
    assert len(named) > 40
    assert {name for name in named if not re.search(rf"\b{name}\b", code)} == set()
