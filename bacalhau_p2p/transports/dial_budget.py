"""Who makes this node dial addresses that do not answer, and how often it may. docs/threats.md has why.

A peer can announce any addresses, also in the names of identities that it invents, and jobs can name
providers of their inputs. Each dial in vain is paid by who is behind it: the requester of the job, or the
neighbour that brought the stranger. Peers that users name, and those that this node knows, cost nobody.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.runtime.rate_limit import TokenBucket
from bacalhau_p2p.transports.offences import Offences

VAIN_DIALS_PER_SECOND: Final = 2
VAIN_DIAL_BURST: Final = 100
"""Addresses that one source may have this node dial in vain, a second and at once."""
MAX_PAYERS: Final = 4_096
"""Sources whose budgets are kept; those that were used longest ago are forgotten first."""
MAX_BROUGHT: Final = 20_000
"""Strangers of which is remembered who brought them, the latest ones."""

_dials_for: ContextVar[PeerID | None] = ContextVar("_dials_for", default=None)


@contextmanager
def dialling_for(peer: PeerID) -> Iterator[None]:
    """What is dialled in this block, and in tasks that begin in it, is dialled because this peer wants it."""
    token = _dials_for.set(peer)
    try:
        yield
    finally:
        _dials_for.reset(token)


class DialBudget:
    """The budgets of one node. `clock` gives seconds that never go back."""

    def __init__(self, clock: Callable[[], float], offences: Offences) -> None:
        self._clock = clock
        self._offences = offences
        self._buckets: OrderedDict[PeerID, TokenBucket] = OrderedDict()
        self._brought: OrderedDict[PeerID, PeerID] = OrderedDict()

    def brought(self, stranger: PeerID, neighbour: PeerID) -> None:
        """This neighbour handed over a message of a stranger."""
        self._brought[stranger] = neighbour
        self._brought.move_to_end(stranger)
        if len(self._brought) > MAX_BROUGHT:
            self._brought.popitem(last=False)

    def met(self, peer: PeerID) -> None:
        """This peer is no stranger any more."""
        self._brought.pop(peer, None)

    def payer(self, peer: PeerID) -> PeerID | None:
        """Who pays if a dial of this peer, by this task, is in vain; None: nobody."""
        return _dials_for.get() or self._brought.get(peer)

    def admits(self, payer: PeerID) -> bool:
        """Whether this node dials for this source now."""
        bucket = self._buckets.get(payer)
        return bucket is None or bucket.debt_lasts(self._clock()) == 0

    def failed(self, payer: PeerID) -> None:
        """An address did not answer."""
        bucket = self._buckets.get(payer)
        if bucket is None:
            bucket = self._buckets[payer] = TokenBucket(VAIN_DIALS_PER_SECOND, VAIN_DIAL_BURST)
            if len(self._buckets) > MAX_PAYERS:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(payer)
        bucket.spend(self._clock(), 1)
        if bucket.debt_lasts(self._clock()) > 0:
            self._offences.note(payer, "vain_dials", "it made this node dial addresses that do not answer")
