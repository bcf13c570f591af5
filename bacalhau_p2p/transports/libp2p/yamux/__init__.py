"""Yamux: many streams over one connection. The wire format is that of go-yamux and py-libp2p."""
