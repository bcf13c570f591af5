"""Layer 3: power cuts under the real stores and SQLite."""
