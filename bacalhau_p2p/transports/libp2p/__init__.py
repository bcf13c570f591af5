"""The transport over libp2p, and the only room that imports py-libp2p."""
