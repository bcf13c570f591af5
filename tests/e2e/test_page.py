"""The page of a node in a real browser, while real nodes run jobs."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright
from wasmtime import wat2wasm

from tests.support.networks.networks import devstack

pytestmark = pytest.mark.network

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
EVIL = "<script>window.owned = true</script>"
WAIT = 30_000
"""Milliseconds for something to appear."""


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None and os.environ.get("CI") != "true":
        pytest.skip("needs Chromium (Debian: apt install chromium)")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    with devstack("--compute-nodes", "2", "--engine", "noop", "--engine", "wasm", folder=folder) as (
        network,
        _,
    ):
        network.wait_for_compute_nodes(2)
        yield network


@pytest.fixture
def page(browser, network):
    context = browser.new_context(base_url=f"http://127.0.0.1:{network.port}")
    page = context.new_page()
    page.set_default_timeout(WAIT)
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "console", lambda message: faults.append(message.text) if "Content Security" in message.text else None
    )
    yield page
    context.close()
    assert faults == []


def job_file(tmp_path, name, *, stdout=""):
    path = tmp_path / "job.yaml"
    engine = {"Type": "noop", "Params": {"Stdout": stdout}}
    path.write_text(json.dumps({"Name": name, "Tasks": [{"Engine": engine}]}))
    return path


def test_a_job_of_the_command_line_appears_runs_and_ends_without_reloading(page, network, tmp_path):
    page.goto("/jobs")
    page.evaluate("window.stays = true")
    submitted = network.cli(
        "job", "run", "--id-only", job_file(tmp_path, "from the command line", stdout="read me")
    )
    job_id = submitted.stdout.strip()
    row = page.locator("tr", has=page.locator(f"#job-{job_id}"))
    expect(row).to_contain_text("from the command line", timeout=WAIT)
    expect(row).to_contain_text("Completed", timeout=WAIT)
    assert page.evaluate("window.stays")
    page.click(f"#job-{job_id}")
    expect(page.locator("main")).to_contain_text("read me")
    expect(page.locator("ol.timeline")).to_contain_text("Submitted")
    with page.expect_download() as download:
        page.click("text=download as tar")
    assert download.value.suggested_filename.endswith(".tar")


SPEAKS_AND_SPINS = """
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\\10\\00\\00\\00\\05\\00\\00\\00")
  (data (i32.const 16) "here\\n")
  (func (export "_start")
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))
    (loop $for_ever (br $for_ever))))
"""


def test_output_is_read_while_the_job_writes_it(page, network, tmp_path):
    (tmp_path / "spin.wasm").write_bytes(wat2wasm(SPEAKS_AND_SPINS))
    submitted = network.cli("wasm", "run", "--id-only", "--wait=false", tmp_path / "spin.wasm")
    assert submitted.returncode == 0, submitted.stderr
    page.goto(f"/jobs/{submitted.stdout.strip()}")
    expect(page.locator("pre[sse-connect]")).to_contain_text("here", timeout=WAIT)
    page.click("text=Stop")
    expect(page.locator("dl")).to_contain_text("Stopped", timeout=WAIT)


def test_a_job_of_the_form_is_watched_until_it_is_stopped(page):
    page.goto("/submit")
    page.fill("#docker-cpu", "lots")
    page.click("text=Submit the Docker job")
    expect(page.locator("#docker-image-fault")).to_have_text("missing")
    expect(page.locator("#docker-cpu")).to_have_value("lots")
    page.fill("#file-text", "Name: by form\nCount: 5\nTasks: [{Engine: {Type: noop}}]")  # there are two nodes
    page.click("text=Submit the job file")
    expect(page.locator("h1")).to_have_text("by form")
    expect(page.locator("main")).to_contain_text("of 5 executions placed", timeout=WAIT)
    page.click("text=Stop")
    expect(page.locator("dl")).to_contain_text("Stopped", timeout=WAIT)
    expect(page.locator("button", has_text="Stop")).to_have_count(0, timeout=WAIT)


def test_scripts_of_strangers_do_not_run(page, network, tmp_path):
    job = job_file(tmp_path, EVIL, stdout=EVIL)
    job_id = network.cli("job", "run", "--id-only", "--wait", job).stdout.strip()
    for path in ("/", "/jobs", f"/jobs/{job_id}", f"/jobs?text={EVIL}"):
        page.goto(path)
        expect(page.locator("main")).to_contain_text("<script>")
        assert not page.evaluate("window.owned")


def paths_of(network, tmp_path):
    job_id = network.cli("job", "run", "--id-only", "--wait", job_file(tmp_path, "looked at")).stdout.strip()
    nodes = network.get("/api/v1/orchestrator/nodes")["Nodes"]
    node = nodes[0]["Info"]["NodeID"]
    return ["/", "/jobs", f"/jobs/{job_id}", "/nodes", f"/nodes/{node}", "/content", "/submit", "/settings"]


def test_every_view_works_without_scripts(browser, network, tmp_path):
    context = browser.new_context(base_url=f"http://127.0.0.1:{network.port}", java_script_enabled=False)
    page = context.new_page()
    for path in paths_of(network, tmp_path):
        page.goto(path)
        assert page.locator("h1").count() == 1
        assert page.locator("main table, main form, main dl").count() >= 1, path
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_view_has_a_serious_fault_of_accessibility(browser, network, tmp_path, scheme):
    found = {}
    for width in (1280, 390):
        context = browser.new_context(
            base_url=f"http://127.0.0.1:{network.port}",
            color_scheme=scheme,
            viewport={"width": width, "height": 900},
            bypass_csp=True,  # axe is a script of its own
        )
        page = context.new_page()
        for path in paths_of(network, tmp_path):
            page.goto(path)
            violations = Axe().run(page).response["violations"]
            serious = [v["id"] for v in violations if v["impact"] in ("serious", "critical")]
            if serious:
                found[f"{path} {width}"] = serious
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), path
        context.close()
    assert found == {}


def test_the_api_is_described_on_a_page_that_needs_no_other_server(page):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto("/api/v1/docs")
    operation = page.locator(".opblock", has_text="/api/v1/events").first
    expect(operation).to_be_visible()
    operation.locator(".opblock-summary-control").click()
    expect(operation).to_contain_text("What happens to all jobs")
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()
    expect(operation.locator(".live-responses-table")).to_contain_text("NextToken")
    assert {url.split("/")[2] for url in asked} == {page.url.split("/")[2]}
