"""A compute-over-data network: jobs travel to the peers that hold the data."""
