"""Whole networks of the real machines on one heap of events, from a seed: no trio, no clock, no disk.

`python -m tests.simulation --runs 1000` runs worlds until one breaks a promise;
`docs/simulation.md` says what is modelled and what is checked.
"""
