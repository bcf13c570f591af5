"""The exchange of blocks between peers: our own protocol, bitswap, and HTTP gateways."""
