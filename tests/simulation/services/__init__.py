"""Layer 2: whole nodes with their services and stores, on a seeded trio."""
