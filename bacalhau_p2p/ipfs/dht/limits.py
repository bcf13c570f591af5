"""Bounds that both sides of a DHT conversation rely on."""

from __future__ import annotations

ANSWER_TIMEOUT = 4.0
"""Seconds that a node has for an answer, dialling included."""
STREAMS_PER_PEER = 4
"""Streams served to one peer, and opened to one peer, at the same time."""
WAITING_STREAMS_PER_PEER = 28
"""Further streams of one peer that wait for a free slot; streams beyond these are reset."""
SLOT_TIMEOUT = ANSWER_TIMEOUT
"""Seconds that a stream waits for a free slot; after that the asking peer has given up anyway."""
IDLE_TIMEOUT = 15.0
"""Seconds without a byte until an inbound stream is closed."""
