"""Layer 1: whole networks of simulated nodes on one heap of events, with users and faults."""
