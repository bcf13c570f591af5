"""Whatever an adapter raises becomes an ExecutionError with a reason."""

from __future__ import annotations

import pytest
import trio

from bacalhau_p2p.components.adapter_calls import call_adapter
from bacalhau_p2p.errors import ContentNotFound, ExecutionError, StorageError


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
