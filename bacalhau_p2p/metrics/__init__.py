"""What a node measures about itself, for Prometheus (see `docs/metrics.md`)."""
