"""Where accepted results are put for the user to fetch."""
