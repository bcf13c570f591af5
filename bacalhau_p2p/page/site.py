"""Draws the templates of the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bacalhau_p2p.model.quantities import duration, size_text
from bacalhau_p2p.page import texts
from bacalhau_p2p.page.charts import line_chart
from bacalhau_p2p.version import __version__

FOLDER = Path(__file__).parent
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
"""What the page may load: only what the node serves."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Site:
    """The templates, with what every page shows."""

    def __init__(self, peer_id: str, *, requester: bool, locked: bool) -> None:
        """`requester`: whether the node takes jobs. `locked`: whether users log in with a token."""
        self._environment = Environment(
            loader=FileSystemLoader(FOLDER / "templates"),
            autoescape=True,
            finalize=texts.harmless,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(
            size=size_text,
            duration=duration,
            moment=texts.moment,
            short=texts.short,
            told=texts.told,
            usage=texts.usage,
        )
        self._environment.globals.update(
            peer_id=peer_id,
            requester=requester,
            locked=locked,
            version=__version__,
            chart=line_chart,
            percent=texts.percent,
        )

    def page(self, template: str, values: dict[str, Any], *, status: int = 200) -> HTMLResponse:
        """A whole page."""
        drawn = self._environment.get_template(template).render(values)
        return HTMLResponse(drawn, status_code=status, headers=HEADERS)

    def live(self, template: str, values: dict[str, Any]) -> str:
        """Only the part of a page that changes while somebody looks: its block `live`."""
        found = self._environment.get_template(template)
        return "".join(found.blocks["live"](found.new_context(values)))
