"""The site of the documentation builds without a warning, and needs nothing from elsewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="scripts/setup --docs installs what builds the site")

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "scripts" / "lib" / "site" / "mkdocs.yml"
LOADED = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    program = [sys.executable, "-m", "mkdocs", "--quiet", "build", "--strict"]
    built = subprocess.run(
        [*program, "--config-file", CONFIG, "--site-dir", folder],
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (built.returncode, built.stdout + built.stderr) == (0, "")
    return folder


def test_every_page_is_in_the_site(site: Path):
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert pages | {"index", "404"} == {path.stem for path in site.glob("*.html")}


def test_pages_load_nothing_from_elsewhere(site: Path):
    found = {page.name: LOADED.findall(page.read_text()) for page in site.rglob("*.html")}
    assert [(name, loaded) for name, loaded in found.items() if loaded] == []
    sheets = [(sheet.name, sheet.read_text()) for sheet in site.rglob("*.css")]
    assert [name for name, text in sheets if re.search(r"url\(.?https?:", text)] == []


def test_every_diagram_is_a_picture(site: Path):
    for page in (ROOT / "docs").glob("*.md"):
        built = (site / f"{page.stem}.html").read_text()
        pictures = re.findall(r'src="(diagrams/\w+\.svg)"', built)
        assert len(pictures) == page.read_text().count("```mermaid")
        assert all((site / picture).read_text().startswith("<svg") for picture in pictures)
        assert "mermaid" not in built


def test_search_finds_pages_without_a_server(site: Path):
    script = (site / "search" / "search_index.js").read_text()
    index = json.loads(script.removeprefix("var __index = "))
    assert any("reservation" in entry["text"] for entry in index["docs"])
    assert (site / "assets" / "iframe-worker.js").exists()
