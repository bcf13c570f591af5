from __future__ import annotations

import importlib.metadata
from importlib.metadata import PackageNotFoundError

import click
import pytest

from bacalhau_p2p.cli import installation


@pytest.fixture
def installed(monkeypatch):
    """The versions of the distributions that the test says are installed."""
    versions: dict[str, str] = {}

    def version(name: str) -> str:
        try:
            return versions[name]
        except KeyError:
            raise PackageNotFoundError(name) from None

    monkeypatch.setattr(importlib.metadata, "version", version)
    return versions


def test_the_client_alone_says_what_a_node_needs(installed):
    installed["bacalhau_p2p_client"] = "1"
    error = installation.not_installed("serve", ModuleNotFoundError(name="bacalhau_p2p.api"))
    assert error.message.startswith(
        "serve needs a node, and only the client is installed: pip install bacalhau_p2p"
    )


def test_a_missing_library_is_named(installed):
    error = installation.not_installed("serve", ModuleNotFoundError(name="libp2p"))
    assert error.message == "serve needs libp2p, which is not installed: pip install bacalhau_p2p"


def test_a_client_that_hides_the_whole_program_is_named(installed):
    installed.update(bacalhau_p2p="1", bacalhau_p2p_client="1")
    error = installation.not_installed("serve", ModuleNotFoundError(name="bacalhau_p2p.api"))
    assert error.message.startswith("bacalhau_p2p_client hides parts of bacalhau_p2p: uninstall both")


@pytest.mark.parametrize(
    "versions", [{}, {"bacalhau_p2p": "1"}, {"bacalhau_p2p": "1", "bacalhau_p2p_client": "1"}]
)
def test_both_of_one_version_are_harmless(installed, versions):
    installed.update(versions)
    installation.check()


def test_two_versions_over_each_other_are_refused(installed):
    installed.update(bacalhau_p2p="2", bacalhau_p2p_client="1")
    with pytest.raises(click.ClickException, match="bacalhau_p2p 2 and bacalhau_p2p_client 1 are installed"):
        installation.check()
