"""How often the API token may be guessed: each address a few times at once, and then once in a while.

What an address gives is only compared within these limits, so from an address that guesses a right token is
refused as well. Other addresses are not affected. A token that was wrong already is no new guess: a client
with an old token keeps nobody out.
"""

from __future__ import annotations

import hmac
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import trio

from bacalhau_p2p.errors import ApiError
from bacalhau_p2p.runtime.client_networks import network_of
from bacalhau_p2p.runtime.logs import get_logger

log = get_logger(__name__)

GUESSES_AT_ONCE = 10
"""Wrong tokens of one address that are compared at once."""
GUESS_INTERVAL = 10.0
"""Seconds after which an address may be wrong once more."""
ALL_GUESSES_AT_ONCE = 100
ALL_GUESS_INTERVAL = 1.0
"""The same for all addresses together. Beyond, an address that was wrong is not compared again before its
own wrong tokens are all forgiven; one that was not is compared."""
MAX_GUESSERS = 5_000
"""Addresses that are remembered; those that were wrong longest ago are forgotten first."""
MAX_REMEMBERED = 4
"""Wrong tokens of an address that are recognized when it sends them again."""
REPORT_INTERVAL = 60.0
"""Seconds between two reports in the log."""
MAX_SHOWN = 10
"""Addresses that a report names."""

Client = tuple[str, int]
"""Address and port."""


@dataclass(slots=True)
class _Guesser:
    """An address that gave a wrong token."""

    forgiven_at: float
    """When all its wrong tokens are forgiven, each of which takes GUESS_INTERVAL."""
    remembered: tuple[int, ...] = ()
    """Hashes of its latest wrong tokens. Python's have a secret of this process."""
    wrong: int = 0
    refused: int = 0
    """Requests since the last report: with a wrong token, and those that were not compared."""


class TokenGuesses:
    """Compares what clients give with what is right, as often as they may guess.

    `clock` gives seconds that never go back. `counters` get `wrong_tokens` and `guesses_refused`.
    """

    def __init__(self, counters: Counter[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._counters = counters
        self._clock = clock
        self._guessers: dict[str, _Guesser] = {}
        """Those that were wrong longest ago first."""
        self._all_forgiven_at = -math.inf

    def is_right(self, client: Client | None, given: str, right: str, *, what: str) -> bool:
        """Whether `given` is `right`, in constant time. `what` it is, such as a cookie, keeps apart what is
        wrong as one thing and right as another.

        Raises ApiError (429) if the address of the client has guessed too often.
        """
        address = network_of(client[0]) if client else ""
        guesser, now = self._guessers.get(address), self._clock()
        hashed = hash((what, given)) if guesser is not None else 0
        if guesser is not None and hashed not in guesser.remembered:
            self._check(address, guesser, now)
        if hmac.compare_digest(given.encode("utf-8", "replace"), right.encode()):
            return True
        self._note(address, hash((what, given)), now)
        return False

    def report(self) -> None:
        """Name in the log the addresses that guessed most since the last report, and forget those that are
        forgiven."""
        now = self._clock()
        guessed = [item for item in self._guessers.items() if item[1].wrong or item[1].refused]
        guessed.sort(key=lambda item: -(item[1].wrong + item[1].refused))
        for address, guesser in guessed[:MAX_SHOWN]:
            log.warning("wrong_api_token", address=address, wrong=guesser.wrong, refused=guesser.refused)
        if len(guessed) > MAX_SHOWN:
            log.warning("wrong_api_token_of_others", addresses=len(guessed) - MAX_SHOWN)
        for _, guesser in guessed:
            guesser.wrong = guesser.refused = 0
        self._guessers = {
            address: guesser for address, guesser in self._guessers.items() if guesser.forgiven_at > now
        }

    async def report_regularly(self) -> None:
        """Until cancelled."""
        while True:
            await trio.sleep(REPORT_INTERVAL)
            self.report()

    def _check(self, address: str, guesser: _Guesser, now: float) -> None:
        wait = _debt(guesser.forgiven_at, now, GUESSES_AT_ONCE, GUESS_INTERVAL)
        of_all = _debt(self._all_forgiven_at, now, ALL_GUESSES_AT_ONCE, ALL_GUESS_INTERVAL)
        wait = max(wait, min(of_all, guesser.forgiven_at - now))
        if wait > 0:
            guesser.refused += 1
            self._counters["guesses_refused"] += 1
            seconds = math.ceil(wait)
            raise ApiError(
                f"too many wrong API tokens from {address}; try again in {seconds} s",
                status=429,
                retry_after=seconds,
            )

    def _note(self, address: str, hashed: int, now: float) -> None:
        self._counters["wrong_tokens"] += 1
        guesser = self._guessers.pop(address, None) or _Guesser(now)
        self._guessers[address] = guesser
        if len(self._guessers) > MAX_GUESSERS:
            del self._guessers[next(iter(self._guessers))]
        guesser.wrong += 1
        if hashed in guesser.remembered:
            return
        guesser.remembered = (*guesser.remembered, hashed)[-MAX_REMEMBERED:]
        guesser.forgiven_at = max(guesser.forgiven_at, now) + GUESS_INTERVAL
        after_this = max(self._all_forgiven_at, now) + ALL_GUESS_INTERVAL
        self._all_forgiven_at = min(after_this, now + ALL_GUESSES_AT_ONCE * ALL_GUESS_INTERVAL)


def _debt(forgiven_at: float, now: float, at_once: int, interval: float) -> float:
    """Seconds until another guess is due; not above 0 if one is."""
    return forgiven_at - now - (at_once - 1) * interval
