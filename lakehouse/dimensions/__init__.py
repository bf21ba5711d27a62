"""Dimension tables and the reference data they are seeded from."""
