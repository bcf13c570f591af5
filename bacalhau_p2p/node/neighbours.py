"""Nodes that were there lately and where they can be dialled, kept over a restart in a file of JSON.

Nothing is kept but what nodes said of themselves. Those to whom there was a connection are worth more than
those that were only heard of, and old ones more than new ones: so a flood of invented nodes drives out
none that is there.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from math import inf
from pathlib import Path

from pydantic import BaseModel, ConfigDict, FiniteFloat, TypeAdapter

from bacalhau_p2p.model.base import PeerID, UnixSeconds
from bacalhau_p2p.runtime.logs import get_logger

log = get_logger(__name__)

MOST = 64
"""Nodes that are kept."""
MOST_ADDRESSES = 8
"""Addresses of one node."""
LONGEST_ADDRESS = 256
KEPT_FOR = 7 * 24 * 3600.0
"""Seconds without a sign of a node after which it is forgotten."""
HERE = 60.0
"""Seconds without a sign of a node for which it counts as one that is there."""
AGAIN_AFTER, AGAIN_AT_LAST = 60.0, 3600.0
"""Seconds until a node that could not be reached is tried again: after each failure twice as many."""
WRITE_APART = 60.0
"""Seconds between two writings of the file at least, when other nodes are to be kept."""
WRITE_EVERY = 600.0
"""Seconds between two writings when nothing has changed but when they were seen."""

_MOST_BYTES = 1024 * 1024


class Neighbour(BaseModel):
    """A node as it is kept. `met`: there was a connection to it."""

    model_config = ConfigDict(frozen=True)

    id: PeerID
    addresses: tuple[str, ...]
    seen: FiniteFloat
    met: bool = False

    def gone(self, now: UnixSeconds) -> bool:
        return now - self.seen > HERE


_FILE = TypeAdapter(list[Neighbour])


class Neighbours:
    """The list of one node. Time is an argument; only `load`, `write` and `forget` touch the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[PeerID, Neighbour] = {}
        self._failures: dict[PeerID, tuple[int, UnixSeconds]] = {}
        self._written: dict[PeerID, Neighbour] = {}
        self._written_at: UnixSeconds = -inf

    # --- the file

    def load(self, now: UnixSeconds) -> None:
        """Take up what an earlier life kept. A file that is missing or damaged is no error, but is logged."""
        try:
            with self._path.open("rb") as file:
                kept = _FILE.validate_json(file.read(_MOST_BYTES))
        except FileNotFoundError:
            log.info("no_neighbours_kept", file=str(self._path))
            return
        except OSError as error:
            log.warning("neighbours_unreadable", file=str(self._path), reason=error.strerror or str(error))
            return
        except ValueError as error:
            reason = str(error).partition("\n")[0]
            log.warning("neighbours_damaged", file=str(self._path), reason=reason)
            return
        for neighbour in kept[:MOST]:
            seen = min(neighbour.seen, now)  # the clock may have been put back
            self._keep(neighbour.id, _usable(neighbour.id, neighbour.addresses), seen, met=neighbour.met)
        self._forget_old(now)
        self._written = dict(self._known)
        log.info("neighbours_kept", count=len(self._known))

    def due(self, now: UnixSeconds, *, last: bool = False) -> bytes | None:
        """What is to be written now, if anything; `last` when the node stops. It counts as written."""
        self._forget_old(now)
        if self._known == self._written:
            return None
        if not last:
            apart = WRITE_EVERY if _lasting(self._known) == _lasting(self._written) else WRITE_APART
            if now - self._written_at < apart:
                return None
        self._written, self._written_at = dict(self._known), now
        return _FILE.dump_json(list(self._known.values()), indent=1)

    def write(self, data: bytes) -> None:
        """Have the disk hold this; whatever happens, the file is whole. A disk that refuses is logged."""
        fresh = self._path.with_name(f"{self._path.name}.new")
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
        except OSError as error:
            log.warning("neighbours_not_kept", file=str(self._path), reason=error.strerror or str(error))

    def forget(self) -> None:
        """Keep nothing, and nothing of earlier lives."""
        self._known.clear()
        for path in (self._path, self._path.with_name(f"{self._path.name}.new")):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                log.warning("neighbours_not_forgotten", file=str(path), reason=error.strerror or str(error))

    # --- the list

    def saw(self, peer: PeerID, addresses: Sequence[str], now: UnixSeconds, *, met: bool) -> None:
        """This node is there: it says so itself, or, when `met`, there is a connection to it."""
        if met:
            self._failures.pop(peer, None)
        usable = _usable(peer, addresses)
        if peer in self._known or (usable and self._room(now, met=met)):
            self._keep(peer, usable, now, met=met)

    def failed(self, peer: PeerID, now: UnixSeconds) -> None:
        """This node could not be reached."""
        if peer in self._known:
            times = self._failures.get(peer, (0, 0))[0] + 1
            pause = min(AGAIN_AFTER * 2.0 ** min(times - 1, 32), AGAIN_AT_LAST)
            self._failures[peer] = (times, now + pause)

    def to_dial(self, now: UnixSeconds, without: Collection[PeerID] = ()) -> list[Neighbour]:
        """Those that may be tried now."""
        self._forget_old(now)
        waiting = {peer for peer, (_, until) in self._failures.items() if until > now}
        return [known for peer, known in self._known.items() if peer not in waiting and peer not in without]

    def _keep(self, peer: PeerID, addresses: tuple[str, ...], seen: UnixSeconds, *, met: bool) -> None:
        known = self._known.get(peer)
        if known is not None:
            addresses, met = addresses or known.addresses, met or known.met
        if addresses:
            self._known[peer] = Neighbour(id=peer, addresses=addresses, seen=seen, met=met)

    def _room(self, now: UnixSeconds, *, met: bool) -> bool:
        """Whether there is room for a further node, perhaps now that one that is worth less had to go."""
        if len(self._known) < MOST:
            return True
        if met:
            worse = [known for known in self._known.values() if not known.met or known.gone(now)]
        else:
            worse = [known for known in self._known.values() if not known.met and known.gone(now)]
        if not worse:
            return False
        self._drop(min(worse, key=lambda known: (known.met, known.seen)).id)
        return True

    def _forget_old(self, now: UnixSeconds) -> None:
        for known in list(self._known.values()):
            if now - known.seen > KEPT_FOR:
                self._drop(known.id)

    def _drop(self, peer: PeerID) -> None:
        del self._known[peer]
        self._failures.pop(peer, None)


def _usable(peer: PeerID, addresses: Sequence[str]) -> tuple[str, ...]:
    own = (text for text in addresses if text.endswith(f"/p2p/{peer}") and len(text) <= LONGEST_ADDRESS)
    return tuple(own)[:MOST_ADDRESSES]


def _lasting(known: dict[PeerID, Neighbour]) -> dict[PeerID, tuple[tuple[str, ...], bool]]:
    """All but when they were seen."""
    return {peer: (neighbour.addresses, neighbour.met) for peer, neighbour in known.items()}
