"""Synthetic CT with exact labels, to try everything without real data."""
