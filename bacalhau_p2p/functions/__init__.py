"""Python functions as jobs: what of a function is sent to the network, and what comes back."""
