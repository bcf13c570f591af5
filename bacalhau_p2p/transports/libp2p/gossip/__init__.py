"""Broadcasts over py-libp2p's gossipsub."""
