"""Tasks that live as long as a block, or as a call."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from bacalhau_p2p.runtime.tasks import CarriedError, all_or_first_fault, background, read_ahead


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


async def test_an_error_is_carried_out_of_nurseries_as_it_was_raised():
    error = CarriedError()
    async with trio.open_nursery(), trio.open_nursery():
        with error.captured():
            raise LookupError
    with pytest.raises(LookupError):
        error.raise_if_captured()


async def test_cancellation_is_not_captured():
    error = CarriedError()
    with trio.move_on_after(0) as scope, error.captured():
        await trio.sleep_forever()
    assert scope.cancelled_caught
    error.raise_if_captured()


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


class Counting:
    """Counts from 0, and notes how far it got and whether it was closed."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.made = 0
        self.closed = False
        self._fail_at = fail_at

    async def __call__(self):
        try:
            while self.made != self._fail_at:
                await trio.lowlevel.checkpoint()
                self.made += 1
                yield self.made
            raise LookupError
        finally:
            self.closed = True


async def test_items_are_made_ahead_up_to_the_limit_and_given_in_order():
    count = Counting()
    async with read_ahead(count(), 2) as items:
        assert [await anext(items), await anext(items)] == [1, 2]
        await trio.testing.wait_all_tasks_blocked()
        assert count.made == 5  # two are waiting, and one waits to be taken
    assert count.closed


async def test_a_failure_is_raised_as_it_was_after_the_items_before_it():
    async with read_ahead(Counting(fail_at=3)(), 8) as items:
        assert [await anext(items) for _ in range(3)] == [1, 2, 3]
        with pytest.raises(LookupError):
            await anext(items)


async def test_an_iteration_ends_with_its_source_and_may_be_left_before():
    async def two():
        yield 1
        yield 2

    async with read_ahead(two(), 1) as items:
        assert [item async for item in items] == [1, 2]
    count = Counting()
    async with read_ahead(count(), 1) as items:
        async for item in items:
            if item == 3:
                break
    assert count.closed


def test_a_cancellation_of_the_block_is_absorbed_also_when_a_nursery_inside_has_wrapped_it(endless):
    async def cancel(scope: trio.CancelScope) -> None:
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()

    async def main() -> str:
        async with background() as outer:
            outer.start_soon(cancel, outer.cancel_scope)
            async with background() as inner:
                inner.start_soon(endless)
                await trio.sleep_forever()
        return "reached"

    assert trio.run(main) == "reached"
    assert endless.ended
