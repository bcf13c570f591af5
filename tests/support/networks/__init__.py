"""Networks of real nodes."""
