"""Prepares the pages for the site: README.md as its first page, diagrams as pictures, links that stay inside.

MkDocs calls the functions whose names begin with `on_`.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[3]
DIAGRAM = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, *, config: Any) -> Files:
    """Add what the build makes: the first page, and a picture for each diagram."""
    files.append(File.generated(config, "index.md", content=(ROOT / "README.md").read_text()))
    pages = [file.content_string for file in files.documentation_pages()]
    diagrams = dict.fromkeys(source for page in pages for source in DIAGRAM.findall(page))
    for source, picture in zip(diagrams, _drawn(diagrams), strict=True):
        files.append(File.generated(config, _name(source), content=picture))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    folder = "" if page.file.src_uri == "index.md" else "docs"
    markdown = LINK.sub(lambda link: _inside(link, folder), markdown)
    return DIAGRAM.sub(lambda block: f"![Diagram]({_name(block[1])})", markdown)


def _inside(link: re.Match[str], folder: str) -> str:
    """The link as the site has it. What is in the repository but not in docs/ is only named."""
    picture, text, path, anchor = link.groups()
    target = posixpath.normpath(posixpath.join(folder, path))
    if target == "README.md":
        return f"[{text}](index.md{anchor or ''})"
    if target.startswith("docs/"):
        return f"{picture}[{text}]({target.removeprefix('docs/')}{anchor or ''})"
    name = text.strip("`")
    return f"`{target}`" if name.rstrip("/") == target else f"{text} (`{target}`)"


def _name(diagram: str) -> str:
    return f"diagrams/{hashlib.sha256(diagram.encode()).hexdigest()[:16]}.svg"


def _drawn(diagrams: Iterable[str]) -> list[str]:
    with ProcessPoolExecutor() as pool:
        return list(pool.map(_draw, diagrams))


def _draw(diagram: str) -> str:
    import mermaidx

    return str(mermaidx.render(diagram).svg())
