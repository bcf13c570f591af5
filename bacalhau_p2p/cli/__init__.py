"""The `bacalhau-p2p` command."""
