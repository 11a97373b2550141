"""Computer-made CT with known labels, to try everything without data."""
