"""Direct frames over one long-lived stream per pair of peers. Imports nothing of libp2p."""
