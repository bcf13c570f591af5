"""A node's key pair, the libp2p peer id derived from it, and boxes sealed to a peer id."""
