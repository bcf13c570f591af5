"""The settings that the flags of `serve` result in."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from bacalhau_p2p.cli import node_run
from bacalhau_p2p.cli import serve as serving
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.settings import Settings


@pytest.fixture
def settings_of(tmp_path, monkeypatch):
    """The settings that a node would run with, given these flags."""
    given: list[Settings] = []
    monkeypatch.setattr(node_run, "run_node", lambda settings, ready: given.append(settings))

    def run(*flags: str) -> Settings:
        done = CliRunner().invoke(serving.serve, ["--data-dir", str(tmp_path), *flags])
        assert done.exit_code == 0, done.output
        return given.pop()

    return run


def test_without_flags_a_node_runs_any_job_that_needs_no_network(settings_of):
    settings = settings_of()
    assert (settings.data_locality, settings.reject_stateless, settings.accept_networked) == (
        "anywhere",
        False,
        "none",
    )
    assert (settings.probe_exec, settings.probe_http, settings.gateway) == ("", "", False)


def test_the_job_selection_flags_of_bacalhau_work(settings_of):
    settings = settings_of(
        *("--job-selection-data-locality", "Local"),
        "--job-selection-reject-stateless",
        "--job-selection-accept-networked",
        *("--job-selection-probe-exec", "exit 0"),
        *("--job-selection-probe-http", "http://127.0.0.1:9/probe"),
    )
    assert (settings.data_locality, settings.reject_stateless, settings.accept_networked) == (
        "local",
        True,
        "full",
    )
    assert (settings.probe_exec, settings.probe_http) == ("exit 0", "http://127.0.0.1:9/probe")


@pytest.mark.parametrize(("flag", "value"), [("--gateway", True), ("--no-gateway", False)])
def test_a_flag_opens_and_closes_the_gateway(settings_of, tmp_path, flag, value):
    (tmp_path / "config.yaml").write_text(f"gateway: {'false' if value else 'true'}\n")
    assert settings_of(flag).gateway is value


def test_a_flag_overrides_the_configuration_file(settings_of, tmp_path):
    (tmp_path / "config.yaml").write_text("accept_networked: true\n")
    assert settings_of().accept_networked == "full"
    assert settings_of("--no-accept-networked").accept_networked == "none"
    assert settings_of("--accept-networked", "HTTP").accept_networked == "http"


def test_the_domains_of_networked_jobs_can_be_limited(settings_of):
    settings = settings_of(
        "--accept-networked=http", "--allow-domain", ".Example.com", "--allow-domain", "a.org"
    )
    assert (settings.accept_networked, settings.network_domains) == ("http", (".example.com", "a.org"))


def test_what_one_requester_may_have_can_be_set(settings_of):
    settings = settings_of("--max-requester-share", "0.75", "--max-requester-jobs", "3")
    assert (settings.max_requester_share, settings.max_requester_jobs) == (0.75, 3)


def test_the_resources_of_all_jobs_and_of_one_can_be_set(settings_of):
    total = ["--limit-total-cpu", "4", "--limit-total-memory", "8gb", "--limit-total-gpu", "1"]
    settings = settings_of(*total, "--limit-job-cpu", "0.5", "--limit-job-disk", "1gb")
    assert (settings.limits.cpu, settings.limits.memory, settings.limits.gpu) == ("4", "8gb", "1")
    assert (settings.job_limits.cpu, settings.job_limits.disk, settings.job_limits.memory) == (
        "0.5",
        "1gb",
        "",
    )


def test_requesters_and_peers_can_be_allowed_and_denied(settings_of):
    alice, bob = (Identity.generate(bytes([number]) * 32).peer_id for number in (1, 2))
    settings = settings_of(
        *("--allow-requester", alice, "--allow-requester", bob, "--deny-requester", bob),
        *("--allow-peer", alice, "--deny-peer", bob),
    )
    assert (settings.allowed_requesters, settings.denied_requesters) == ((alice, bob), (bob,))
    assert (settings.allowed_peers, settings.denied_peers) == ((alice,), (bob,))
