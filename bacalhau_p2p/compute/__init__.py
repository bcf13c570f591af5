"""The component that bids on jobs, runs them and publishes their results."""
