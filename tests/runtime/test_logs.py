from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta

import pytest
import trio

from bacalhau_p2p.runtime.logs import JSONFormatter, PrintableFormatter, about, configure, get_logger


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


def lines_as_json(caplog, form):
    return [json.loads(form.format(record)) for record in caplog.records]


def test_an_event_in_json_has_its_values_by_name(caplog):
    log = get_logger("bacalhau_p2p.test")
    log.warning("job_failed", job="j-1", reason="\x1b[2J\n", attempts=3, level="mine")
    logging.getLogger("library").error("broken: %s", "pipe")
    job, library = lines_as_json(caplog, JSONFormatter())
    assert datetime.fromisoformat(job.pop("time")).utcoffset() == timedelta(0)
    assert job == {
        "level": "warning",
        "logger": "bacalhau_p2p.test",
        "event": "job_failed",
        "job": "j-1",
        "reason": "\x1b[2J\n",
        "attempts": 3,
    }
    assert (library["level"], library["logger"], library["event"]) == ("error", "library", "broken: pipe")
    assert all(JSONFormatter().format(record).isprintable() for record in caplog.records)


def test_an_exception_in_json_is_one_value(caplog):
    try:
        raise ValueError("no disk")
    except ValueError as error:
        get_logger("bacalhau_p2p.test").error("failed", exc_info=error)
        logging.getLogger("library").exception("failed too")
    for line in lines_as_json(caplog, JSONFormatter()):
        assert line["exception"].splitlines()[-1] == "ValueError: no disk"


async def test_a_task_and_those_that_it_starts_name_what_they_are_about(caplog):
    log = get_logger("bacalhau_p2p.test")

    async def step():
        await trio.lowlevel.checkpoint()
        log.warning("slow")

    async with trio.open_nursery() as nursery:
        with about(job="j-1", execution="e-1"):
            nursery.start_soon(step)
        log.warning("other")
    other, slow = lines_as_json(caplog, JSONFormatter())
    assert (other["event"], "job" in other) == ("other", False)
    assert (slow["event"], slow["job"], slow["execution"]) == ("slow", "j-1", "e-1")


def test_programs_may_log_in_json():
    handlers = logging.getLogger().handlers
    kept = handlers.copy()
    handlers.clear()  # those of pytest
    try:
        configure("info", "json")
        (handler,) = handlers
    finally:
        handlers[:] = kept
    assert isinstance(handler.formatter, JSONFormatter)
