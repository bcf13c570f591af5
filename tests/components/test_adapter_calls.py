"""Whatever an adapter raises becomes an ExecutionError with a reason."""

from __future__ import annotations

import pytest
import trio

from bacalhau_p2p.components.adapter_calls import (
    adapter_errors,
    call_adapter,
    expected,
    expected_faults,
    reason_of,
)
from bacalhau_p2p.errors import ContentNotFound, ExecutionError, Fault, StorageError


class Unprintable(BaseException):
    """As native libraries raise for a panic."""

    def __str__(self):
        raise RuntimeError


def raises(error):
    async def call():
        await trio.lowlevel.checkpoint()
        raise error

    return call


async def failure(error) -> ExecutionError:
    with pytest.raises(ExecutionError) as caught:
        await call_adapter("run step", raises(error), execution="e-1")
    return caught.value


async def test_what_the_call_returns_is_returned():
    async def seven():
        await trio.lowlevel.checkpoint()
        return 7

    assert await call_adapter("run step", seven) == 7


async def test_an_execution_error_comes_out_as_it_is():
    error = StorageError("no such bucket", permanent=True)
    assert await failure(error) is error


@pytest.mark.parametrize("error", [ContentNotFound("no peer has it"), OSError("no peer has it")])
async def test_an_expected_error_is_a_failure_that_another_attempt_may_not_have(error):
    raised = await failure(error)
    assert (str(raised), raised.permanent, raised.__cause__) == ("no peer has it", False, error)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SystemExit(3), "SystemExit in this node's run step: 3"),
        (Unprintable(), "Unprintable in this node's run step: Unprintable"),
        (
            BaseExceptionGroup("one", [SystemExit()]),
            "BaseExceptionGroup in this node's run step: one (1 sub-exception)",
        ),
        (KeyError("image"), "KeyError in this node's run step: 'image'"),
        (
            ExceptionGroup("two", [ValueError("a"), ValueError("b")]),
            "ExceptionGroup in this node's run step: two (2 sub-exceptions)",
        ),
    ],
)
async def test_an_unexpected_exception_is_logged_and_named_in_the_reason(error, reason, caplog):
    raised = await failure(error)
    assert (str(raised), raised.permanent) == (reason, False)
    (record,) = caplog.records
    assert "execution='e-1'" in record.getMessage()
    assert record.exc_info[1] is error


async def test_a_cancelled_call_is_cancelled():
    with trio.CancelScope() as scope:
        scope.cancel()
        await call_adapter("run step", trio.sleep_forever)
    assert scope.cancelled_caught


async def test_what_a_cancelled_adapter_raises_beside_its_cancellation_is_logged_and_does_not_end_the_node(
    caplog,
):
    async def call():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_when_cancelled)
            await trio.sleep_forever()

    async def fail_when_cancelled():
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("late")

    with trio.CancelScope() as scope:
        scope.cancel()
        await call_adapter("run step", call)
    assert scope.cancelled_caught
    (record,) = caplog.records
    assert record.exc_info[1].subgroup(KeyError)


async def test_a_call_that_takes_too_long_fails(autojump_clock):
    with pytest.raises(ExecutionError, match="run step did not end within 5 s"):
        await call_adapter("run step", trio.sleep_forever, timeout=5)


def test_keyboard_interrupts_pass():
    with pytest.raises(KeyboardInterrupt), adapter_errors("run step"):
        raise KeyboardInterrupt


def test_a_value_of_another_type_is_a_failure():
    assert expected(None, str | None, "probe") is None
    with pytest.raises(ExecutionError, match="this node's probe returned int instead of str"):
        expected(1, str, "probe")
    assert expected_faults([Fault("a", "b")], "engine") == [Fault("a", "b")]
    for wrong in (None, "text", [1]):
        with pytest.raises(ExecutionError, match="this node's engine returned"):
            expected_faults(wrong, "engine")


def test_a_reason_can_always_be_encoded_and_has_a_limit():
    assert reason_of(ValueError("\ud800")) == "?"
    assert reason_of(Unprintable()) == "Unprintable"
    assert len(reason_of(ValueError("x" * 10**6))) == 4096
