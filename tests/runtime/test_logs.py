from __future__ import annotations

import logging

import pytest

from bacalhau_p2p.runtime.logs import configure, get_logger


@pytest.fixture(autouse=True)
def levels():
    """Restores what `configure` changes."""
    package, root = logging.getLogger("bacalhau_p2p"), logging.getLogger()
    level, handlers = package.level, list(root.handlers)
    yield
    package.setLevel(level)
    root.handlers[:] = handlers


def test_an_event_is_a_line_with_its_values(caplog):
    get_logger("bacalhau_p2p.test").warning("job_failed", job="j-1", reason="no disk")
    assert caplog.messages == ["event='job_failed' job='j-1' reason='no disk'"]


def test_without_configuration_only_warnings_are_logged(caplog):
    log = get_logger("bacalhau_p2p.test")
    log.info("started")
    log.warning("slow")
    assert caplog.messages == ["event='slow'"]


def test_configuration_sets_the_level_of_this_package_only(caplog):
    configure("info")
    get_logger("bacalhau_p2p.test").info("started")
    logging.getLogger("library").info("noise")
    assert caplog.messages == ["event='started'"]
