from __future__ import annotations

import logging

import pytest

from bacalhau_p2p.runtime.logs import PrintableFormatter, configure, get_logger


@pytest.fixture(autouse=True)
def levels():
    """Restores what `configure` changes."""
    loggers = [logging.getLogger(), logging.getLogger("bacalhau_p2p")]
    before = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


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


def test_a_line_of_the_log_commands_no_terminal_and_imitates_no_other():
    formatter = PrintableFormatter("%(levelname)s %(name)s %(message)s")
    try:
        raise ValueError("\x1b[2J\u202e")
    except ValueError as error:
        raised = (type(error), error, error.__traceback__)
    text = "gone: %s\nERROR forged"
    record = logging.LogRecord("li\x07b", logging.ERROR, "", 1, text, ("\x1b]52;c;eA==\x07",), raised)
    first, *trace = formatter.format(record).splitlines()
    assert first == "ERROR li\ufffdb gone: \ufffd]52;c;eA==\ufffd\ufffdERROR forged"
    assert trace[0] == "Traceback (most recent call last):"
    assert trace[-1] == "ValueError: \ufffd[2J\ufffd"


def test_programs_log_through_the_formatter():
    handlers = logging.getLogger().handlers
    kept = handlers.copy()
    handlers.clear()  # those of pytest
    try:
        configure("info")
        (handler,) = handlers
    finally:
        handlers[:] = kept
    assert isinstance(handler.formatter, PrintableFormatter)


def test_values_of_an_event_are_escaped(caplog):
    get_logger("bacalhau_p2p.test").warning("failed", reason="\x1b[2J\u202e\n")
    assert caplog.messages == [r"event='failed' reason='\x1b[2J\u202e\n'"]
