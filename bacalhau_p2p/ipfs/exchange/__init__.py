"""Blocks from peer to peer: our own protocol, bitswap, gateways."""
