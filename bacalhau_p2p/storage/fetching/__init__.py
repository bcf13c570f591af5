"""What all providers of inputs from the web share: a cache, limits, and one fetch per source at a time."""
