"""Fuzzing: what strangers can send, mutated, into every part that reads it (see `docs/fuzzing.md`)."""
