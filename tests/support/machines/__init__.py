"""Benches on which the state machines are tried."""
