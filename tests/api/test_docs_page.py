"""The OpenAPI document for people (`docs_page`)."""

from __future__ import annotations

import re
from pathlib import Path

import httpx

import bacalhau_p2p.api.docs_page as module
from tests.support.networks.served import served

DOCS = "/api/v1/docs"


async def test_the_page_and_all_that_it_loads_come_from_the_node(tmp_path):
    async with served(tmp_path, compute_nodes=0) as (_, url), httpx.AsyncClient(base_url=url) as http:
        page = await http.get(DOCS)
        assert page.headers["content-type"].startswith("text/html")
        assert "script-src 'self'" in page.headers["content-security-policy"]
        loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert len(loaded) == 4
        for path in loaded:
            if path != "/static/icon.svg":  # of the page
                found = await http.get(path)
                assert (found.status_code, found.headers["x-content-type-options"]) == (200, "nosniff")


async def test_only_its_own_files_are_served(tmp_path):
    async with served(tmp_path, compute_nodes=0) as (_, url), httpx.AsyncClient(base_url=url) as http:
        for name in ("index.html", "..%2fapp.py", "app.py", "%2e%2e/app.py"):
            assert (await http.get(f"{DOCS}/{name}")).status_code == 404


async def test_a_browser_without_the_token_is_sent_to_the_form_to_log_in(tmp_path):
    async with (
        served(tmp_path, compute_nodes=0, api_token="s3cret") as (_, url),
        httpx.AsyncClient(base_url=url) as http,
    ):
        sent = await http.get(DOCS, headers={"Accept": "text/html"})
        assert (sent.status_code, sent.headers["location"]) == (303, "/login?next=%2Fapi%2Fv1%2Fdocs")
        assert (await http.get(DOCS)).status_code == 401
        assert (await http.get(f"{DOCS}/start.js")).status_code == 401


def test_the_copy_has_its_licence_and_asks_no_other_server():
    folder = Path(module.__file__).parent / "swagger_ui"
    assert "Apache License" in (folder / "LICENSE-swagger-ui.txt").read_text()
    assert "validatorUrl: null" in (folder / "start.js").read_text()
    assert {path.name for path in folder.iterdir()} == {*module._TYPES, "index.html"}
