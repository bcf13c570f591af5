"""Tasks that live as long as a block, or as a call."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from bacalhau_p2p.runtime.tasks import all_or_first_fault, background


class Endless:
    """A task that ends when it is cancelled."""

    ended = False

    async def __call__(self):
        try:
            await trio.sleep_forever()
        finally:
            self.ended = True


@pytest.fixture
def endless():
    return Endless()


async def test_what_a_block_raises_comes_out_as_it_was_raised_and_ends_its_tasks(endless):
    async def fail_beside_it():
        async with background() as nursery:
            nursery.start_soon(endless)
            await trio.testing.wait_all_tasks_blocked()
            raise LookupError

    with pytest.raises(LookupError):
        await fail_beside_it()
    assert endless.ended


async def test_results_come_in_the_order_of_the_steps_whichever_ends_first():
    second_is_done = trio.Event()

    async def first():
        await second_is_done.wait()
        return 1

    async def second():
        second_is_done.set()
        return 2

    assert await all_or_first_fault([first, second], OSError) == [1, 2]
    assert await all_or_first_fault([], OSError) == []


async def test_the_first_fault_ends_the_other_steps_and_comes_out_as_itself(endless):
    async def fail():
        await trio.testing.wait_all_tasks_blocked()
        raise FileNotFoundError("input")

    with pytest.raises(FileNotFoundError, match="input"):
        await all_or_first_fault([endless, fail], LookupError, OSError)
    assert endless.ended


async def test_a_fault_that_was_not_named_stays_an_exception_group():
    async def fail():
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as caught:
        await all_or_first_fault([fail], OSError)
    assert isinstance(caught.value.exceptions[0], ZeroDivisionError)
